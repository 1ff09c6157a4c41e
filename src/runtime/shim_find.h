/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds a shim by its command line, when neither its socket nor its connection leads to it: the
 * socket was removed, or replaced by somebody else's.
 */
#pragma once

#include "base/proc.h"

/* The process that serves as shim of task `id` for the daemon at `grpc_address`: a program named
 * containerd-shim* of root's with these values of -namespace, -id and -address, and no action
 * (`start`, `delete`) behind them. 0, -ESRCH when there is none, or another negative errno. Reads
 * all of /proc: for the rare case, not on the loop. */
int shim_find(const char *grpc_address, const char *ns, const char *id, struct proc *ret);

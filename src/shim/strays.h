/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a call of the OCI runtime that failed has left running: the half-made first process of a
 * container, a hook, the child of a wrapper. A runtime that is killed takes nobody along, and who
 * has called setsid(2) is not in its process group either (runtime_call_kill_rest()). Left alone it
 * goes on, mounts, and makes directories in a rootfs that is being unmounted.
 *
 * The shim is a subreaper, so each of them, or who started it, becomes its child. Strays of a
 * container are those of its children that nobody watches and that are in the container's control
 * group, or have their working directory in its bundle, where the runtime is started. Their
 * descendants are ended with them. A container of which something is to stay must have no stray:
 * this is for one that is undone.
 */
#pragma once

#include "shim/container.h"

/* Kills them until there are none, then calls fn(op), perhaps before this returns; those that do
 * not end within two seconds are logged and left. op's timer, tries and launched are used
 * meanwhile. */
void strays_end(struct op *op, op_fn fn);

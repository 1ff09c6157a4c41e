/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shim's process can do, one file each. All return the exit status of the process; start,
 * delete and info fill *e when that is not 0.
 */
#pragma once

#include "base/err.h"
#include "shim/args.h"

/* Answers a daemon's `start`: makes the socket, leaves a serving process behind it (or finds one
 * that serves the group already) and prints the address. */
int action_start(const struct args *args, struct err *e);
/* Removes whatever is left of a container whose shim is gone, and prints how it ended. */
int action_delete(const struct args *args, struct err *e);
/* Prints what this shim is: containerd.types.RuntimeInfo. */
int action_info(struct err *e);
/* Serves containers until the last one is gone. v1: as the shim of runtime v1. */
int action_serve(const struct args *args, bool v1, struct err *e);

/* Standard input until its end, at most max bytes: *ret is malloc'ed. -EFBIG. */
int action_read_input(size_t max, uint8_t **ret, size_t *ret_n);
#define ACTION_INPUT_MAX (10u << 20)

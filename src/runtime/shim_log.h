/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shim writes into the `log` fifo of its bundle, copied line by line into the daemon's log
 * at level debug. The daemon opens the fifo before it starts a shim: most shims open it for writing
 * and would wait for a reader.
 */
#pragma once

#include "base/event.h"
#include "runtime/bundle.h"

struct shim_log;

#define SHIM_LOG_LINE_MAX 2048 /* bytes; longer lines come in parts */

/* [any thread] A fifo that cannot be opened is logged and gives NULL: a task runs without it. */
struct shim_log *shim_log_open(struct event_loop *loop, struct bundle *b);
/* [any thread] The same for a fifo that is open, read-write and non-blocking; fd is taken in any
 * case. */
struct shim_log *shim_log_new(struct event_loop *loop, const struct bundle *b, int fd);
/* [any thread] Takes NULL. Returns NULL. */
struct shim_log *shim_log_close(struct shim_log *l);

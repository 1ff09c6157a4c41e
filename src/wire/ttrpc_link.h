/* SPDX-License-Identifier: Apache-2.0 */
/* A socket with the frames that come and the bytes that wait to go: what both ends of ttrpc share.
 */
#pragma once

#include "base/event.h"
#include "wire/ttrpc.h"

struct ttrpc_link {
    int fd; /* owned */
    struct event_fd source;
    struct ttrpc_decoder in;
    struct buf out;
};

/* Registers for reading. fd is owned on success. Returns 0 or negative errno. */
int ttrpc_link_init(struct ttrpc_link *l, struct event_loop *loop, int fd, size_t max_out,
                    event_fd_fn fn);
/* Closes; may be called twice. */
void ttrpc_link_done(struct ttrpc_link *l);
/* Stops all reading and writing, keeps what was decoded. */
void ttrpc_link_close(struct ttrpc_link *l);
static inline bool ttrpc_link_is_open(const struct ttrpc_link *l)
{
    return l->fd >= 0;
}
/* One read(2). 1: something came; 0: nothing now; -ENODATA: the end; other negative errno: broken.
 */
int ttrpc_link_read(struct ttrpc_link *l);
/* Writes what goes and waits for room for the rest. 0, or negative errno: broken. */
int ttrpc_link_flush(struct ttrpc_link *l);

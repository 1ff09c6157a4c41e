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
    bool is_drained; /* the last read got less than it had room for */
};

/* Registers for reading. fd is owned on success; it need not be non-blocking. Returns 0 or negative
 * errno. */
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
/* One recv(2), that does not wait. 1: something came, with is_drained saying whether another one is
 * of use; 0: nothing now; -ENODATA: the end; other negative errno: broken. */
int ttrpc_link_read(struct ttrpc_link *l);
/* Writes what goes, and has the loop tell when there is room for the rest. 0, or negative errno:
 * broken. */
int ttrpc_link_flush(struct ttrpc_link *l);

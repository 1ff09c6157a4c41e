/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying one stream to another on the loop, never waiting for either side: splice(2) between
 * pipes, read(2) and write(2) where one side is a terminal or a file. At most one chunk is ever
 * held here, and only while the reader does not take it. Pipes of a copy that has moved a mebibyte
 * are made four times as wide (256 KiB each): fewer, larger turns for a container that prints much,
 * nothing more for all others.
 *
 * A side that cannot be polled (a regular file, /dev/null) counts as always ready; not both may be
 * such. What a destination of that kind refuses (a full disk) is dropped and counted, so that the
 * writer goes on; the log says when that begins, and when it ends how much is missing.
 */
#pragma once

#include "base/event.h"

struct copy;
/* The source has ended, or the destination will never take anything again. Nothing is watched any
 * more; the fds are the owner's to close. */
typedef void (*copy_ended_fn)(struct copy *c);

struct copy {
    struct event_loop *loop; /* NULL: not running */
    struct event_fd src, dst;
    int src_fd, dst_fd; /* borrowed */
    char *chunk;        /* read and not yet written */
    size_t chunk_at, chunk_len, chunk_size;
    bool may_splice;
    bool is_wide;
    bool src_always_ready, dst_always_ready;
    bool waits_for_dst;
    bool src_ended;   /* why it ended: true for the source, false for the destination */
    uint64_t moved;   /* bytes taken by the destination */
    uint64_t dropped; /* bytes it refused since it last took some */
    copy_ended_fn ended;
};

/* Both fds must be non-blocking, each used by this copy alone. 0 or negative errno; -EPERM: neither
 * can be polled. */
int copy_start(struct copy *c, struct event_loop *loop, int src_fd, int dst_fd,
               copy_ended_fn ended);
/* No-op when it is not running. */
void copy_stop(struct copy *c);
/* Bytes that were read and are not written yet. */
static inline size_t copy_held(const struct copy *c)
{
    return c->chunk_len - c->chunk_at;
}
static inline bool copy_is_running(const struct copy *c)
{
    return c->loop != NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy waits for its source, or, once a move has stalled although the source had something, for
 * its destination. splice(2) answers EAGAIN for an empty source and for a full destination alike: a
 * copy that guessed wrong finds the destination ready, tries again, and goes back to the source.
 */
#include "shim/copy.h"

#include <fcntl.h>
#include <inttypes.h>

#include "base/log.h"

#define SPLICE_SIZE (1024 * 1024)
#define CHUNK_SIZE 65536
#define WIDE_FROM (1024 * 1024)
#define WIDE_SIZE (256 * 1024)
#define TTY_CHUNK_SIZE 4096 /* a terminal never gives more at once */
/* Moves of one callback: a stream that never pauses must not keep the loop for itself. */
#define MOVES_MAX 16

enum move { MOVED, SRC_EMPTY, DST_FULL, STALLED /* one of the two */, ENDED };

static void end(struct copy *c)
{
    copy_ended_fn ended = c->ended;

    copy_stop(c);
    ended(c);
}

void copy_stop(struct copy *c)
{
    if (!c->loop)
        return;
    event_fd_remove(&c->src);
    event_fd_remove(&c->dst);
    if (c->dropped > 0)
        log_warn("output of a container has ended, its last %" PRIu64 " bytes are missing",
                 c->dropped);
    free(c->chunk);
    c->chunk = NULL;
    c->loop = NULL;
}

static bool has_chunk(const struct copy *c)
{
    return c->chunk_at < c->chunk_len;
}

/* Writes the chunk out. */
static enum move flush_chunk(struct copy *c)
{
    while (c->chunk_at < c->chunk_len) {
        size_t left = c->chunk_len - c->chunk_at;
        ssize_t n = write(c->dst_fd, c->chunk + c->chunk_at, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return DST_FULL;
        if (n < 0 && !c->dst_always_ready)
            return ENDED;
        if (n < 0) {
            if (c->dropped == 0)
                log_warn("output of a container is being dropped: %m");
            c->dropped += left;
            break;
        }
        if (c->dropped > 0)
            log_warn("output of a container is taken again, %" PRIu64 " bytes are missing",
                     c->dropped);
        c->dropped = 0;
        c->moved += (size_t)n;
        c->chunk_at += (size_t)n;
    }
    c->chunk_at = c->chunk_len = 0;
    return MOVED;
}

static enum move move_chunk(struct copy *c)
{
    if (has_chunk(c))
        return flush_chunk(c);

    /* Asked for when there is something, given back in wait_for(): an idle copy holds none. */
    if (!c->chunk && !(c->chunk = malloc(c->chunk_size)))
        return SRC_EMPTY;
    ssize_t n = read(c->src_fd, c->chunk, c->chunk_size);
    if (n <= 0) {
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return SRC_EMPTY;
        c->src_ended = true; /* EIO is how a terminal says that nobody holds its other side */
        return ENDED;
    }
    c->chunk_len = (size_t)n;
    return flush_chunk(c);
}

/* Only ever wider, and no matter if it is refused. */
static void widen(int fd)
{
    int size = fcntl(fd, F_GETPIPE_SZ);

    if (size > 0 && size < WIDE_SIZE)
        fcntl(fd, F_SETPIPE_SZ, WIDE_SIZE);
}

static enum move move(struct copy *c)
{
    if (!c->may_splice)
        return move_chunk(c);
    ssize_t n =
        splice(c->src_fd, NULL, c->dst_fd, NULL, SPLICE_SIZE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n > 0) {
        c->moved += (size_t)n;
        if (!c->is_wide && c->moved >= WIDE_FROM) {
            c->is_wide = true;
            widen(c->src_fd);
            widen(c->dst_fd);
        }
        return MOVED;
    }
    if (n == 0) {
        c->src_ended = true;
        return ENDED;
    }
    switch (errno) {
    case EAGAIN:
        return STALLED;
    case EINTR:
        return MOVED;
    case EINVAL: /* no pipe among the two, or a file opened for appending */
        c->may_splice = false;
        return MOVED;
    default:
        return ENDED;
    }
}

static void on_ready(struct copy *c);

static void on_src(struct event_fd *source, _unused_ uint32_t events)
{
    on_ready(container_of(source, struct copy, src));
}

static void on_dst(struct event_fd *source, _unused_ uint32_t events)
{
    on_ready(container_of(source, struct copy, dst));
}

static void wait_for(struct copy *c, bool dst)
{
    if (!has_chunk(c)) {
        free(c->chunk);
        c->chunk = NULL;
    }
    dst = dst || c->src_always_ready;
    c->waits_for_dst = dst;
    /* A silent source leaves epoll altogether, or its hang-up would wake us over and over. */
    if (!c->src_always_ready)
        event_fd_set(&c->src, dst ? 0 : EPOLLIN);
    if (!c->dst_always_ready)
        event_fd_set(&c->dst, dst ? EPOLLOUT : 0);
}

static void on_ready(struct copy *c)
{
    for (int i = 0; i < MOVES_MAX; i++) {
        switch (move(c)) {
        case MOVED:
            break;
        case SRC_EMPTY:
            wait_for(c, false);
            return;
        case DST_FULL:
            wait_for(c, true);
            return;
        case STALLED:
            wait_for(c, !c->waits_for_dst && !c->dst_always_ready);
            return;
        case ENDED:
            end(c);
            return;
        }
    }
    wait_for(c, has_chunk(c));
}

int copy_start(struct copy *c, struct event_loop *loop, int src_fd, int dst_fd, copy_ended_fn ended)
{
    bool has_tty = isatty(src_fd) || isatty(dst_fd);
    *c = (struct copy){
        .src_fd = src_fd,
        .dst_fd = dst_fd,
        .may_splice = !has_tty,
        .chunk_size = has_tty ? TTY_CHUNK_SIZE : CHUNK_SIZE,
        .ended = ended,
    };
    int r = event_fd_add(loop, &c->dst, dst_fd, EPOLLOUT, on_dst);
    if (r == -EPERM)
        c->dst_always_ready = true;
    else if (r < 0)
        return r;
    else
        event_fd_set(&c->dst, 0);
    r = event_fd_add(loop, &c->src, src_fd, EPOLLIN, on_src);
    if (r == -EPERM && !c->dst_always_ready) {
        c->src_always_ready = true;
        wait_for(c, true);
    } else if (r < 0) {
        event_fd_remove(&c->dst);
        return r;
    }
    c->loop = loop;
    return 0;
}

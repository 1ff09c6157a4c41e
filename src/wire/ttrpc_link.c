/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ttrpc_link.h"

#include <sys/socket.h>

#define IDLE_BYTES_MAX 4096

int ttrpc_link_init(struct ttrpc_link *l, struct event_loop *loop, int fd, size_t max_out,
                    event_fd_fn fn)
{
    l->fd = -EBADF;
    int r = event_fd_add(loop, &l->source, fd, EPOLLIN, fn);
    if (r < 0)
        return r;
    ttrpc_decoder_init(&l->in);
    buf_init(&l->out, max_out);
    l->fd = fd;
    return 0;
}

void ttrpc_link_close(struct ttrpc_link *l)
{
    if (l->fd < 0)
        return;
    event_fd_remove(&l->source);
    close_fd(&l->fd);
    buf_done(&l->out);
}

void ttrpc_link_done(struct ttrpc_link *l)
{
    ttrpc_link_close(l);
    ttrpc_decoder_done(&l->in);
}

int ttrpc_link_read(struct ttrpc_link *l)
{
    uint8_t *space;
    size_t size;
    ssize_t n;

    int r = ttrpc_decoder_space(&l->in, &space, &size);
    if (r < 0)
        return r;
    do
        n = recv(l->fd, space, size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n == 0)
        return -ENODATA;
    ttrpc_decoder_fed(&l->in, (size_t)n);
    /* What comes later, the end included, the loop tells of. */
    l->is_drained = (size_t)n < size;
    return 1;
}

int ttrpc_link_flush(struct ttrpc_link *l)
{
    while (l->out.len > 0) {
        ssize_t n = send(l->fd, buf_head(&l->out), l->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return event_fd_set(&l->source, EPOLLIN | EPOLLOUT);
        if (n < 0)
            return -errno;
        buf_consume(&l->out, (size_t)n);
    }
    if (l->out.allocated > IDLE_BYTES_MAX)
        buf_trim(&l->out);
    return event_fd_set(&l->source, EPOLLIN);
}

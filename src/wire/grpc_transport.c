/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_transport.h"

#include <sys/socket.h>

/* Reads of one turn, so that a busy peer does not keep the others waiting. */
#define READS_PER_TURN 4
/* What peers take without asking for more: SETTINGS_MAX_FRAME_SIZE's default and a frame's head. */
#define FRAME_MAX (16384 + 9)

int grpc_transport_init(struct grpc_transport *t, struct event_loop *loop, int fd,
                        nghttp2_session *session, uint8_t *scratch, event_fd_fn fn)
{
    *t = (struct grpc_transport){.fd = -EBADF};
    buf_init(&t->kept, GRPC_TRANSPORT_KEPT_MAX);
    int r = event_fd_add(loop, &t->io, fd, EPOLLIN, fn);
    if (r < 0)
        return r;
    t->fd = fd;
    t->session = session;
    t->scratch = scratch;
    return 0;
}

void grpc_transport_done(struct grpc_transport *t)
{
    event_fd_remove(&t->io);
    nghttp2_session_del(t->session);
    t->session = NULL;
    close_fd(&t->fd);
    buf_done(&t->kept);
}

int grpc_transport_read(struct grpc_transport *t, int *ret_nghttp2)
{
    for (int i = 0; i < READS_PER_TURN; i++) {
        ssize_t n = recv(t->fd, t->scratch, GRPC_TRANSPORT_SCRATCH, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        if (n == 0)
            return -ECONNRESET;

        ssize_t used = nghttp2_session_mem_recv(t->session, t->scratch, (size_t)n);
        if (used < 0) {
            *ret_nghttp2 = (int)used;
            return used == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
        }
        if (n < GRPC_TRANSPORT_SCRATCH)
            return 0;
    }
    return 0;
}

/* Gathers frames in the scratch area. What does not fit goes to `kept`, which is empty here. */
static int transport_gather(struct grpc_transport *t, size_t *ret_len)
{
    size_t len = 0;

    while (GRPC_TRANSPORT_SCRATCH - len > FRAME_MAX) {
        const uint8_t *bytes;
        ssize_t n = nghttp2_session_mem_send(t->session, &bytes);
        if (n < 0)
            return n == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EPROTO;
        if (n == 0)
            break;
        if ((size_t)n > GRPC_TRANSPORT_SCRATCH - len) {
            int r = buf_append(&t->kept, bytes, (size_t)n);
            if (r < 0)
                return r;
            break;
        }
        memcpy(t->scratch + len, bytes, (size_t)n);
        len += (size_t)n;
    }
    *ret_len = len;
    return 0;
}

/* How much the socket took of n bytes, 0 when it is full, or negative errno. */
static ssize_t transport_send(struct grpc_transport *t, const uint8_t *bytes, size_t n)
{
    for (;;) {
        ssize_t sent = send(t->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0)
            return sent;
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

/* A session that has heard enough does not look at its socket: the peer would keep us busy. */
static uint32_t transport_interest(const struct grpc_transport *t)
{
    return nghttp2_session_want_read(t->session) ? EPOLLIN : 0;
}

/* The socket is full: keep `rest` in front of what is kept and wait. */
static int transport_keep(struct grpc_transport *t, const uint8_t *rest, size_t n)
{
    if (n > 0) {
        _cleanup_(buf_done) struct buf behind = t->kept;
        buf_init(&t->kept, GRPC_TRANSPORT_KEPT_MAX);
        int r = buf_append(&t->kept, rest, n);
        if (r == 0 && behind.len > 0)
            r = buf_append(&t->kept, buf_head(&behind), behind.len);
        if (r < 0)
            return r;
    }
    if (nghttp2_session_get_outbound_queue_size(t->session) > GRPC_TRANSPORT_FRAMES_MAX)
        return -ENOBUFS;
    return event_fd_set(&t->io, transport_interest(t) | EPOLLOUT);
}

int grpc_transport_write(struct grpc_transport *t)
{
    for (;;) {
        while (t->kept.len > 0) {
            ssize_t sent = transport_send(t, buf_head(&t->kept), t->kept.len);
            if (sent < 0)
                return (int)sent;
            if (sent == 0)
                return transport_keep(t, NULL, 0);
            buf_consume(&t->kept, (size_t)sent);
        }
        buf_trim(&t->kept);

        size_t len;
        int r = transport_gather(t, &len);
        if (r < 0)
            return r;
        if (len == 0 && t->kept.len == 0)
            return event_fd_set(&t->io, transport_interest(t));

        for (size_t done = 0; done < len;) {
            ssize_t sent = transport_send(t, t->scratch + done, len - done);
            if (sent < 0)
                return (int)sent;
            if (sent == 0)
                return transport_keep(t, t->scratch + done, len - done);
            done += (size_t)sent;
        }
    }
}

bool grpc_transport_is_finished(const struct grpc_transport *t)
{
    return t->kept.len == 0 && !nghttp2_session_want_read(t->session) &&
           !nghttp2_session_want_write(t->session);
}

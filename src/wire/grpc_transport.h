/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A socket under an nghttp2 session: reads into the session, writes what the session has. Server
 * and client connections embed one each. Everything is on the loop's thread.
 *
 * Nothing is buffered while a connection is idle: reading and writing go through a scratch area
 * shared by all connections of a loop, and only what the socket did not take is kept, at most
 * GRPC_TRANSPORT_KEPT_MAX bytes. While that waits, no further DATA is drawn from the session.
 */
#pragma once

#include <nghttp2/nghttp2.h>

#include "base/buf.h"
#include "base/event.h"

#define GRPC_TRANSPORT_SCRATCH (64 * 1024)
#define GRPC_TRANSPORT_KEPT_MAX (1024 * 1024)
/* Frames waiting in the session (not DATA, which waits in its call) before we give up on a peer
 * that does not read. */
#define GRPC_TRANSPORT_FRAMES_MAX 10000

struct grpc_transport {
    struct event_fd io;
    int fd;                   /* owned, -EBADF when closed */
    nghttp2_session *session; /* owned */
    uint8_t *scratch;         /* borrowed, GRPC_TRANSPORT_SCRATCH bytes */
    struct buf kept;          /* drawn from the session, not taken by the socket */
};

/* Takes fd and session on success. fn is called with EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR. */
int grpc_transport_init(struct grpc_transport *t, struct event_loop *loop, int fd,
                        nghttp2_session *session, uint8_t *scratch, event_fd_fn fn);
void grpc_transport_done(struct grpc_transport *t);

/* Feeds the session with what the socket has, a bounded amount. 0; -ECONNRESET at the end of the
 * stream; -EPROTO when the session refuses the bytes (*ret_nghttp2 says why); another negative
 * errno. */
int grpc_transport_read(struct grpc_transport *t, int *ret_nghttp2);
/* Writes what there is as far as the socket takes it, and asks for EPOLLOUT for the rest. 0,
 * -ENOBUFS when too much waits, another negative errno. */
int grpc_transport_write(struct grpc_transport *t);
/* True when the session has said and heard everything: close it. */
bool grpc_transport_is_finished(const struct grpc_transport *t);

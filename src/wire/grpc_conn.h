/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the server: an nghttp2 session, its streams and its manners. Loop only.
 */
#pragma once

#include "base/event.h"
#include "wire/grpc_transport.h"

struct grpc_account;
struct grpc_call;
struct grpc_server;

/* What a peer may do for nothing: PING, SETTINGS, RST_STREAM, PRIORITY, empty DATA and frames that
 * make us reset a stream cost one each; every DATA frame we send earns one, since grpc-go pings
 * when it receives data. */
#define GRPC_MANNERS_BURST 1000
#define GRPC_MANNERS_PER_S 200

#define GRPC_PREFACE_TIMEOUT_MS 10000
/* How long a connection that is to be closed may take to read our last frames. */
#define GRPC_LINGER_MS 2000

#define GRPC_STREAM_WINDOW (1 << 20)
#define GRPC_CONN_WINDOW (8 << 20)

struct grpc_conn {
    struct list link; /* of the server */
    struct grpc_server *server;
    struct grpc_account *account;
    struct grpc_transport transport;
    struct event_timer timer; /* the preface, later lingering */
    struct list calls;
    struct list flush_link; /* of the server's list of connections with something to write */
    int64_t manners;        /* what is left, in thousandths */
    uint64_t manners_at_ms;
    bool is_greeted; /* preface and SETTINGS came */
    bool is_closing; /* GOAWAY is said, and nothing new begins */
};

/* Starts to serve a connected socket; fd is owned from success on. 0 or negative errno. */
int grpc_conn_new(struct grpc_server *server, int fd);
/* Cancels its calls and closes it at once. Not from inside its callbacks. Takes and returns NULL.
 */
struct grpc_conn *grpc_conn_free(struct grpc_conn *conn);
/* Writes, and frees the connection when that fails or it has ended. */
void grpc_conn_flush(struct grpc_conn *conn);
/* Will be flushed before the loop goes on. */
void grpc_conn_want_flush(struct grpc_conn *conn);
/* GOAWAY, every open call ends with Unavailable, closed when all that is written. */
void grpc_conn_shutdown(struct grpc_conn *conn);

/* grpc_stream.c: what a connection's session tells of a stream. */
struct grpc_call *grpc_stream_new(struct grpc_conn *conn, int32_t stream_id);
void grpc_stream_header(struct grpc_call *call, const char *name, size_t name_len,
                        const char *value, size_t value_len);
void grpc_stream_headers_end(struct grpc_call *call);
void grpc_stream_data(struct grpc_call *call, const uint8_t *bytes, size_t n);
void grpc_stream_end(struct grpc_call *call);    /* END_STREAM */
void grpc_stream_closed(struct grpc_call *call); /* the last one: drops the stream's reference */
/* Moves what the call has for its stream into the session. */
void grpc_stream_sync(struct grpc_call *call);

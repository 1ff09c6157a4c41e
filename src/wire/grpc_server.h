/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC server (HTTP/2 cleartext by libnghttp2) on unix sockets, driven by an event loop.
 *
 * The loop's thread owns every connection. A method says where its handlers run: on the loop (they
 * must not block) or on the pool (straight-line code that may block on disk and processes).
 * Handlers of one call never run concurrently; calls of one connection do. A call is answered
 * exactly once, from any thread, at any time: a parked call costs memory, no thread.
 *
 * Flow control is end to end: bytes of a client are acknowledged when its message has been handled,
 * and a sender that runs ahead of a slow client is told so (grpc_call_send() returns 0 and
 * `writable` comes).
 *
 * Limits, each answered with ResourceExhausted or the HTTP/2 error for it: message size (16 MiB
 * unless configured, refused before it is buffered), streams and calls a connection, bytes buffered
 * a client (accounted by SO_PEERCRED pid), headers, connections; PING, SETTINGS, RST_STREAM and
 * empty-frame floods end the connection with ENHANCE_YOUR_CALM; a preface that does not come in 10
 * s closes it.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/event.h"
#include "base/workq.h"

#define GRPC_MESSAGE_MAX (16u << 20)
#define GRPC_MAX_CONNECTIONS 4096
#define GRPC_MAX_STREAMS 1000
#define GRPC_MAX_HEADER_BYTES 16384

enum grpc_place { GRPC_ON_LOOP, GRPC_ON_POOL };
enum grpc_kind { GRPC_UNARY, GRPC_SERVER_STREAM, GRPC_BIDI };

struct grpc_server;
struct grpc_call;

/* What a streaming call can hear of, all at the method's place, never concurrently. Any may be
 * NULL. */
struct grpc_stream_ops {
    /* A further message of the client (bidi only); valid during the call. */
    void (*message)(struct grpc_call *call, void *state, const ProtobufCMessage *message);
    /* The client has sent its last message (bidi only). */
    void (*half_closed)(struct grpc_call *call, void *state);
    /* The queue towards the client has drained after grpc_call_send() returned 0. */
    void (*writable)(struct grpc_call *call, void *state);
    /* The client went away or the deadline passed; the call is over and needs no answer any more.
     */
    void (*cancelled)(struct grpc_call *call, void *state);
    /* The last callback: releases state. */
    void (*release)(void *state);
};

struct grpc_method {
    const char *name;
    enum grpc_kind kind;
    enum grpc_place place;
    const ProtobufCMessageDescriptor *request;
    /* Called once with the request (bidi: with the first message; if the client half-closes without
     * one, with NULL). A unary call may be answered here or later. `request` is valid until the
     * call is answered for unary and server streaming, during the call for bidi. */
    void (*handle)(struct grpc_call *call, const ProtobufCMessage *request);
};

struct grpc_service {
    const char *name; /* "containerd.services.tasks.v1.Tasks" */
    const struct grpc_method *methods;
    size_t n_methods;
    void *userdata;
};

struct grpc_server_options {
    struct workq *pool;      /* borrowed; NULL: everything runs on the loop */
    size_t max_recv_message; /* bytes, 0: GRPC_MESSAGE_MAX */
    size_t max_send_message;
};

/* services are borrowed for the server's life. Unknown ones: Unimplemented "unknown service X";
 * unknown methods: "unknown method Y for service X". */
int grpc_server_new(struct event_loop *loop, const struct grpc_server_options *options,
                    const struct grpc_service *services, size_t n_services,
                    struct grpc_server **ret, struct err *e);
/* listen_fd is owned from success on. */
int grpc_server_listen(struct grpc_server *s, int listen_fd, struct err *e);
/* Stops accepting, sends GOAWAY, fails open calls with Unavailable "server is shutting down". */
void grpc_server_shutdown(struct grpc_server *s);
/* On the loop, with no handler running on the pool (free the pool first). Takes NULL. Returns NULL.
 */
struct grpc_server *grpc_server_free(struct grpc_server *s);
size_t grpc_server_connections(const struct grpc_server *s);

/*
 * The call, from any thread. A handler borrows it until it is answered; who keeps it beyond that
 * (to answer from elsewhere while the client may cancel) holds a reference.
 */
struct grpc_call *grpc_call_ref(struct grpc_call *call);
struct grpc_call *grpc_call_unref(struct grpc_call *call); /* takes NULL; returns NULL */

void *grpc_call_userdata(const struct grpc_call *call); /* of the service */
/* First value of a header (lower-case name), NULL if absent. Borrowed for the call's life. */
const char *grpc_call_header(const struct grpc_call *call, const char *name);
/* How many values the header came with. */
size_t grpc_call_header_count(const struct grpc_call *call, const char *name);
/* Milliseconds left until the client's deadline; -1: none; 0: passed. */
int64_t grpc_call_time_left_ms(const struct grpc_call *call);
/* The client is gone or out of time: an answer will be dropped. */
bool grpc_call_is_cancelled(const struct grpc_call *call);

/* Makes the call a stream with state. Called from `handle`, once. (A parked unary call uses it too,
 * for `cancelled` and `release`.) */
void grpc_call_set_stream(struct grpc_call *call, const struct grpc_stream_ops *ops, void *state);
void *grpc_call_state(const struct grpc_call *call);

/* Sends one message of a stream. 1: sent or queued, go on; 0: queued, but wait for `writable`;
 * negative: the call is over (or out of memory, or the message is over the limit). */
int grpc_call_send(struct grpc_call *call, const ProtobufCMessage *message);
/* Bytes queued towards the client of this call and not yet taken by its connection. */
size_t grpc_call_queued_bytes(const struct grpc_call *call);
/* Answers a unary call: message and OK. Only the first answer counts. */
void grpc_call_reply(struct grpc_call *call, const ProtobufCMessage *message);
/* Ends a call: OK when e is NULL (streams), otherwise its code and sentence. */
void grpc_call_finish(struct grpc_call *call, const struct err *e);

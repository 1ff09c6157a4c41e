/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a client connection and its calls (grpc_client.h has the outside). Loop only.
 *
 * A call ends once: call_end() takes it out of the connection, tells its owner and drops the
 * reference of the connection. Code that calls back holds a reference meanwhile, since a callback
 * may cancel the call or free the client; a client freed inside its own callbacks goes when they
 * have returned.
 */
#pragma once

#include "wire/grpc_client.h"
#include "wire/grpc_frame.h"
#include "wire/grpc_queue.h"
#include "wire/grpc_transport.h"

#define GRPC_CLIENT_MESSAGE_MAX (16u << 20)
#define GRPC_CLIENT_MAX_CALLS 10000

struct grpc_client {
    struct event_loop *loop;
    struct grpc_transport transport;
    struct event_timer broken; /* tells open calls that the connection has failed */
    struct list calls;
    size_t n_calls;
    struct strmap headers;
    unsigned depth; /* of our callbacks: nothing is written or freed inside */
    bool is_broken; /* no further calls */
    bool is_freed;
    char why[128]; /* it is broken */
    uint8_t scratch[];
};

struct grpc_client_call {
    unsigned refs;
    struct list link;
    struct grpc_client *client; /* NULL once it has ended */
    int32_t stream_id;
    const ProtobufCMessageDescriptor *reply;
    grpc_client_message_fn message;
    grpc_client_end_fn end;
    void *userdata;
    struct event_timer timer;
    struct grpc_decoder decoder;
    struct grpc_queue sending;
    bool is_send_closed;
    bool is_deferred;
    int http_status;
    int grpc_status; /* -1: none came */
    char message_text[ERR_MSG_MAX];
};

/* Around everything the loop does for a client; leaving writes, and frees what was freed inside. */
void grpc_client_enter(struct grpc_client *c);
void grpc_client_leave(struct grpc_client *c);
/* The connection is of no use any more: open calls end soon, from the loop. */
void grpc_client_break(struct grpc_client *c, const char *why);

/* What the session tells of a stream. */
void grpc_client_call_header(struct grpc_client_call *call, const char *name, const char *value);
void grpc_client_call_data(struct grpc_client_call *call, const uint8_t *bytes, size_t n);
void grpc_client_call_closed(struct grpc_client_call *call, uint32_t http2_code);
/* Ends the call; e NULL: OK. */
void grpc_client_call_end(struct grpc_client_call *call, const struct err *e);

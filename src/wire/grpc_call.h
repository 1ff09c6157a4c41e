/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a call (grpc_server.h has its outside). A call has two halves:
 *
 *   stream  grpc_stream.c, on the loop: what nghttp2 and the call have to do with each other
 *   steps   grpc_steps.c, at the method's place: one callback of the method after the other
 *
 * and a meeting point under `lock`: messages and news for the steps, messages and the end for the
 * stream. A step is taken while `scheduled` is set, by whoever set it, so that no two ever run at
 * once.
 *
 * Life: created by the stream's HEADERS with one reference, which goes when the stream closes or
 * the connection dies. Every scheduled run and every entry in the server's list of due calls holds
 * another. The request lives as long as the call, so that who holds a reference may read it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "wire/grpc_account.h"
#include "wire/grpc_conn.h"
#include "wire/grpc_frame.h"
#include "wire/grpc_headers.h"
#include "wire/grpc_queue.h"
#include "wire/grpc_server.h"

/* grpc_call_send() says "wait" from the one on, `writable` comes at the other. */
#define GRPC_SEND_HIGH (1u << 20)
#define GRPC_SEND_LOW (256u << 10)

/* A message of the client that waits for its step. */
struct grpc_inbound {
    struct grpc_inbound *next;
    uint8_t *bytes;
    size_t n;
};

struct grpc_call {
    atomic_uint refs;
    atomic_bool cancelled;

    /* Written by the stream's HEADERS, constant afterwards. */
    struct grpc_server *server; /* a reference */
    struct grpc_account *account;
    const struct grpc_service *service;
    const struct grpc_method *method; /* NULL: refused at once */
    struct grpc_headers headers;
    uint64_t deadline_ms; /* clock_monotonic_ms(), 0: none */

    /* The stream; loop only. */
    struct grpc_conn *conn; /* NULL once the stream is closed */
    struct list link;       /* of conn->calls */
    struct event_timer timer;
    struct grpc_decoder decoder;
    struct grpc_queue sending;
    struct grpc_head *head; /* while its HEADERS arrive */
    size_t unacked;         /* bytes received and not yet given back to the window */
    int32_t stream_id;
    int http_status;
    bool is_deaf;      /* further DATA is dropped: refused, failed or over */
    bool is_responded; /* a response with a body was submitted */
    bool is_deferred;  /* and its body waits for us */
    bool is_ending;    /* nothing comes behind `sending` but the trailers */

    pthread_mutex_t lock;
    /* For the steps. */
    struct grpc_inbound *inbox;
    struct grpc_inbound **inbox_last;
    size_t backlog; /* messages received and not yet handled */
    bool is_half_closed;
    bool is_half_closed_told;
    bool is_writable_wanted;
    bool is_writable_due;
    bool is_scheduled;
    bool is_handled; /* `handle` was called */
    bool is_cancel_told;
    bool is_released;
    /* For the stream. */
    struct grpc_queue outbox;
    size_t handled_bytes; /* of messages, to be given back to the window */
    size_t queued;        /* bytes in outbox and sending, charged to the account */
    size_t held;          /* bytes of what came and is still kept, likewise */
    bool is_over;         /* answered, cancelled, or the stream is gone: nothing more is sent */
    bool is_answered;     /* by the method */
    bool is_ended;        /* code and status_message are set */
    enum err_code code;
    char *status_message; /* NULL: empty */

    /* The steps; only inside one, or before the first. */
    ProtobufCMessage *request;
    const struct grpc_stream_ops *ops;
    void *state;
    struct workq_job job;

    /* The server's list of due calls, under its lock. */
    struct list due_link;
    bool is_due;
    bool is_sync_due;
    bool is_run_due;
};

/* NULL when out of memory. The account's call is counted by the caller and owned from then on. */
struct grpc_call *grpc_call_new(struct grpc_conn *conn, int32_t stream_id);

/* [loop] Ends the call from our side: the client is told, the method hears `cancelled`. */
void grpc_call_abort(struct grpc_call *call, enum err_code code, const char *format, ...)
    _printf_(3, 4);
/* [loop] The stream is gone: nobody is left to tell. */
void grpc_call_lost(struct grpc_call *call);
/* [loop] n bytes of outgoing messages were taken by the session or dropped. */
void grpc_call_sent(struct grpc_call *call, size_t n);

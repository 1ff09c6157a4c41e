/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_call.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/clock.h"
#include "wire/grpc_dispatch.h"
#include "wire/grpc_steps.h"
#include "wire/pb.h"

#define TRIM_ABOVE (256u << 10)

struct grpc_call *grpc_call_new(struct grpc_conn *conn, int32_t stream_id)
{
    struct grpc_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    if (pthread_mutex_init(&call->lock, NULL) != 0) {
        free(call);
        return NULL;
    }
    call->refs = 1;
    call->server = conn->server;
    atomic_fetch_add(&call->server->refs, 1);
    call->account = conn->account;
    call->conn = conn;
    call->stream_id = stream_id;
    call->http_status = 200;
    call->inbox_last = &call->inbox;
    grpc_decoder_init(&call->decoder, conn->server->options.max_recv_message);
    list_init(&call->due_link);
    list_push_back(&conn->calls, &call->link);
    return call;
}

static void call_free(struct grpc_call *call)
{
    for (struct grpc_inbound *m; (m = call->inbox);) {
        call->inbox = m->next;
        free(m->bytes);
        free(m);
    }
    grpc_queue_clear(&call->outbox);
    grpc_queue_clear(&call->sending);
    grpc_decoder_done(&call->decoder);
    grpc_headers_done(&call->headers);
    free(call->status_message);
    pb_free(call->request);
    /* A large request is a million small parts at worst, which the allocator would keep. */
    if (call->held > TRIM_ABOVE)
        malloc_trim(0);
    grpc_account_refund(call->account, call->held + call->queued);
    grpc_account_close_call(call->account);
    grpc_server_unref(call->server);
    pthread_mutex_destroy(&call->lock);
    free(call);
}

struct grpc_call *grpc_call_ref(struct grpc_call *call)
{
    atomic_fetch_add(&call->refs, 1);
    return call;
}

struct grpc_call *grpc_call_unref(struct grpc_call *call)
{
    if (call && atomic_fetch_sub(&call->refs, 1) == 1)
        call_free(call);
    return NULL;
}

void *grpc_call_userdata(const struct grpc_call *call)
{
    return call->service->userdata;
}

const char *grpc_call_header(const struct grpc_call *call, const char *name)
{
    return grpc_headers_get(&call->headers, name);
}

size_t grpc_call_header_count(const struct grpc_call *call, const char *name)
{
    return grpc_headers_count(&call->headers, name);
}

int64_t grpc_call_time_left_ms(const struct grpc_call *call)
{
    if (!call->deadline_ms)
        return -1;
    uint64_t now = clock_monotonic_ms();
    return now >= call->deadline_ms ? 0 : (int64_t)(call->deadline_ms - now);
}

bool grpc_call_is_cancelled(const struct grpc_call *call)
{
    return atomic_load(&call->cancelled);
}

void grpc_call_set_stream(struct grpc_call *call, const struct grpc_stream_ops *ops, void *state)
{
    pthread_mutex_lock(&call->lock);
    call->ops = ops;
    call->state = state;
    pthread_mutex_unlock(&call->lock);
}

void *grpc_call_state(const struct grpc_call *call)
{
    return call->state;
}

size_t grpc_call_queued_bytes(const struct grpc_call *call)
{
    struct grpc_call *c = (struct grpc_call *)call;
    pthread_mutex_lock(&c->lock);
    size_t n = c->queued;
    pthread_mutex_unlock(&c->lock);
    return n;
}

/* [lock held] Nothing is sent any more but this code and sentence. */
static void call_end(struct grpc_call *call, enum err_code code, const char *message)
{
    call->is_over = call->is_ended = true;
    call->code = code;
    /* Without memory for the sentence the code alone has to do. */
    call->status_message = message && *message ? strdup(message) : NULL;
}

/* [lock held] Queues a packed message, which is owned on success. */
static int call_enqueue(struct grpc_call *call, struct grpc_chunk *chunk)
{
    if (call->is_over)
        return -ECANCELED;
    if (!grpc_account_charge(call->account, chunk->size))
        return -ENOBUFS;
    call->queued += chunk->size;
    grpc_queue_push(&call->outbox, chunk);
    return 0;
}

int grpc_call_send(struct grpc_call *call, const ProtobufCMessage *message)
{
    struct grpc_chunk *chunk;
    size_t size;

    int r = grpc_chunk_new(message, call->server->options.max_send_message, &chunk, &size);
    if (r < 0)
        return r;

    pthread_mutex_lock(&call->lock);
    r = call_enqueue(call, chunk);
    if (r == 0) {
        call->is_writable_wanted = call->queued >= GRPC_SEND_HIGH;
        r = !call->is_writable_wanted;
        grpc_server_sync_later(call->server, call);
    } else {
        free(chunk);
    }
    pthread_mutex_unlock(&call->lock);
    return r;
}

void grpc_call_reply(struct grpc_call *call, const ProtobufCMessage *message)
{
    struct err e = ERR_INIT;
    struct grpc_chunk *chunk;
    size_t size, max = call->server->options.max_send_message;

    int r = grpc_chunk_new(message, max, &chunk, &size);
    if (r == -EMSGSIZE)
        err_set(&e, ERR_RESOURCE_EXHAUSTED,
                "grpc: trying to send message larger than max (%zu vs. %zu)", size, max);
    else if (r < 0)
        err_oom(&e);
    if (r < 0) {
        grpc_call_finish(call, &e);
        return;
    }

    pthread_mutex_lock(&call->lock);
    r = call_enqueue(call, chunk);
    if (r == 0)
        call_end(call, ERR_OK, NULL);
    else
        free(chunk);
    if (r == -ENOBUFS)
        call_end(call, ERR_RESOURCE_EXHAUSTED, "too many bytes wait to be read by this client");
    if (r != -ECANCELED) {
        call->is_answered = true;
        grpc_steps_schedule(call);
        grpc_server_sync_later(call->server, call);
    }
    pthread_mutex_unlock(&call->lock);
}

void grpc_call_finish(struct grpc_call *call, const struct err *e)
{
    pthread_mutex_lock(&call->lock);
    if (!call->is_over) {
        if (!e)
            call_end(call, ERR_OK, NULL);
        else
            call_end(call, e->code == ERR_OK ? ERR_UNKNOWN : e->code, e->msg);
        call->is_answered = true;
        grpc_steps_schedule(call);
        grpc_server_sync_later(call->server, call);
    }
    pthread_mutex_unlock(&call->lock);
}

void grpc_call_abort(struct grpc_call *call, enum err_code code, const char *format, ...)
{
    char message[ERR_MSG_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);

    pthread_mutex_lock(&call->lock);
    if (!call->is_over) {
        call_end(call, code, message);
        atomic_store(&call->cancelled, true);
        grpc_steps_schedule(call);
        grpc_server_sync_later(call->server, call);
    }
    pthread_mutex_unlock(&call->lock);
}

void grpc_call_lost(struct grpc_call *call)
{
    pthread_mutex_lock(&call->lock);
    call->is_over = true;
    atomic_store(&call->cancelled, true);
    grpc_steps_schedule(call);
    pthread_mutex_unlock(&call->lock);
}

void grpc_call_sent(struct grpc_call *call, size_t n)
{
    grpc_account_refund(call->account, n);
    pthread_mutex_lock(&call->lock);
    call->queued -= n;
    if (call->is_writable_wanted && call->queued <= GRPC_SEND_LOW) {
        call->is_writable_wanted = false;
        call->is_writable_due = true;
        grpc_steps_schedule(call);
    }
    pthread_mutex_unlock(&call->lock);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_steps.h"

#include "wire/grpc_dispatch.h"
#include "wire/pb.h"

enum step {
    STEP_NONE,
    STEP_HANDLE,
    STEP_MESSAGE,
    STEP_HALF_CLOSED,
    STEP_WRITABLE,
    STEP_CANCELLED,
    STEP_RELEASE,
};

/* What a waiting message costs beyond its bytes. */
#define INBOUND_COST (sizeof(struct grpc_inbound) + 64)

/* [lock held] */
static enum step call_next(const struct grpc_call *call)
{
    bool is_bidi = call->method && call->method->kind == GRPC_BIDI;

    if (call->is_over) {
        if (!call->is_handled || !call->ops || call->is_released)
            return STEP_NONE;
        if (!call->is_answered && !call->is_cancel_told && call->ops->cancelled)
            return STEP_CANCELLED;
        return call->ops->release ? STEP_RELEASE : STEP_NONE;
    }
    if (!call->is_handled)
        return call->is_half_closed || (is_bidi && call->inbox) ? STEP_HANDLE : STEP_NONE;
    if (call->inbox)
        return STEP_MESSAGE;
    if (call->is_half_closed && !call->is_half_closed_told && is_bidi)
        return STEP_HALF_CLOSED;
    return call->is_writable_due ? STEP_WRITABLE : STEP_NONE;
}

/* [lock held] Marks the step as taken and fetches its message. */
static void call_take(struct grpc_call *call, enum step step, struct grpc_inbound **ret)
{
    *ret = NULL;
    switch (step) {
    case STEP_HANDLE:
    case STEP_MESSAGE:
        call->is_handled = true;
        *ret = call->inbox;
        if (*ret) {
            call->inbox = (*ret)->next;
            if (!call->inbox)
                call->inbox_last = &call->inbox;
        }
        break;
    case STEP_HALF_CLOSED:
        call->is_half_closed_told = true;
        break;
    case STEP_WRITABLE:
        call->is_writable_due = false;
        break;
    case STEP_CANCELLED:
        call->is_cancel_told = true;
        break;
    case STEP_RELEASE:
        call->is_released = true;
        break;
    case STEP_NONE:
        break;
    }
}

/* The message was handled: its bytes are given back to the window, and to the account unless the
 * call keeps it. */
static void call_settle(struct grpc_call *call, size_t n, bool is_kept)
{
    size_t wire = n + GRPC_PREFIX_SIZE;

    pthread_mutex_lock(&call->lock);
    call->backlog--;
    call->handled_bytes += wire;
    if (!is_kept) {
        call->held -= wire + INBOUND_COST;
        grpc_account_refund(call->account, wire + INBOUND_COST);
    }
    if (call->method->kind == GRPC_BIDI)
        grpc_server_sync_later(call->server, call);
    pthread_mutex_unlock(&call->lock);
}

static void call_step_message(struct grpc_call *call, enum step step, struct grpc_inbound *in)
{
    bool is_kept = call->method->kind != GRPC_BIDI;
    ProtobufCMessage *message = NULL;
    struct err e = ERR_INIT;
    size_t n = in ? in->n : 0;
    bool is_good = true;

    if (in) {
        is_good = pb_unpack_request(call->method->request, in->bytes, n, &message, &e) == 0;
        free(in->bytes);
        free(in);
        /* Beside grpc-go: a request that cannot be read is Internal, not InvalidArgument. */
        if (!is_good) {
            err_wrap(&e, "grpc: error unmarshalling request");
            if (e.code != ERR_RESOURCE_EXHAUSTED)
                e.code = ERR_INTERNAL;
            grpc_call_finish(call, &e);
        }
    }
    if (is_good) {
        if (is_kept)
            call->request = message;
        if (step == STEP_HANDLE)
            call->method->handle(call, message);
        else if (call->ops && call->ops->message)
            call->ops->message(call, call->state, message);
    }
    if (!is_kept)
        pb_free(message);
    if (in)
        call_settle(call, n, is_kept);
}

static void call_step(struct grpc_call *call, enum step step, struct grpc_inbound *in)
{
    const struct grpc_stream_ops *ops = call->ops;

    switch (step) {
    case STEP_HANDLE:
    case STEP_MESSAGE:
        call_step_message(call, step, in);
        break;
    case STEP_HALF_CLOSED:
        if (ops && ops->half_closed)
            ops->half_closed(call, call->state);
        break;
    case STEP_WRITABLE:
        if (ops && ops->writable)
            ops->writable(call, call->state);
        break;
    case STEP_CANCELLED:
        ops->cancelled(call, call->state);
        break;
    case STEP_RELEASE:
        ops->release(TAKE(call->state));
        break;
    case STEP_NONE:
        break;
    }
}

void grpc_steps_run(struct grpc_call *call)
{
    for (;;) {
        struct grpc_inbound *in;

        pthread_mutex_lock(&call->lock);
        enum step step = call_next(call);
        call_take(call, step, &in);
        if (step == STEP_NONE)
            call->is_scheduled = false;
        pthread_mutex_unlock(&call->lock);
        if (step == STEP_NONE)
            break;
        call_step(call, step, in);
    }
    grpc_call_unref(call);
}

static void run_on_pool(struct workq_job *job)
{
    grpc_steps_run(container_of(job, struct grpc_call, job));
}

void grpc_steps_schedule(struct grpc_call *call)
{
    if (call->is_scheduled || call_next(call) == STEP_NONE)
        return;

    call->is_scheduled = true;
    grpc_call_ref(call);
    if (call->method->place == GRPC_ON_POOL) {
        int r = grpc_server_submit(call->server, &call->job, run_on_pool);
        if (r >= 0)
            return;
        /* A handler that may block must not run on the loop: refuse the call. Later callbacks have
         * to come, wherever. */
        if (!call->is_handled && r != -ESHUTDOWN) {
            call->is_scheduled = false;
            call->is_over = call->is_ended = true;
            call->code = ERR_RESOURCE_EXHAUSTED;
            call->status_message = strdup("no thread can be started for this call");
            grpc_server_sync_later(call->server, call);
            grpc_call_unref(call); /* never the last: the stream holds one until it is told */
            return;
        }
    }
    grpc_server_run_later(call->server, call);
}

bool grpc_steps_hold(struct grpc_call *call, size_t n)
{
    if (!grpc_account_charge(call->account, n))
        return false;
    pthread_mutex_lock(&call->lock);
    call->held += n;
    pthread_mutex_unlock(&call->lock);
    return true;
}

int grpc_steps_message(struct grpc_call *call, uint8_t *bytes, size_t n)
{
    _free_ char *owned = (char *)bytes;

    if (!grpc_steps_hold(call, INBOUND_COST))
        return -ENOBUFS;
    struct grpc_inbound *in = calloc(1, sizeof(*in));
    if (!in)
        return -ENOMEM;
    in->n = n;

    int r = 0;
    pthread_mutex_lock(&call->lock);
    if (call->method->kind != GRPC_BIDI && call->backlog > 0) {
        r = -EEXIST;
    } else if (!call->is_over) {
        in->bytes = (uint8_t *)TAKE(owned);
        *call->inbox_last = in;
        call->inbox_last = &in->next;
        call->backlog++;
        in = NULL;
        grpc_steps_schedule(call);
    }
    pthread_mutex_unlock(&call->lock);
    free(in);
    return r;
}

int grpc_steps_half_close(struct grpc_call *call)
{
    int r = 0;

    pthread_mutex_lock(&call->lock);
    if (call->method->kind != GRPC_BIDI && !call->is_half_closed && call->backlog == 0) {
        r = -ENODATA;
    } else {
        call->is_half_closed = true;
        grpc_steps_schedule(call);
    }
    pthread_mutex_unlock(&call->lock);
    return r;
}

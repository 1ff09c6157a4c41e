/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycles. Replies are given while frames are dispatched, and a reply function may make calls
 * or free the client; `dispatching` then keeps the memory until the dispatch is over.
 */
#include "wire/ttrpc_client.h"

#include <limits.h>

#include "base/str.h"
#include "ttrpc.pb-c.h"
#include "wire/pb.h"
#include "wire/status.h"
#include "wire/ttrpc_link.h"

#define READS_PER_TURN 16
#define FIRST_BUCKETS 16
#define NANO_PER_MS 1000000

struct client_call {
    struct ttrpc_client *client;
    struct client_call *next; /* of the same bucket */
    uint32_t stream_id;
    ttrpc_reply_fn fn;
    void *userdata;
    struct event_timer timer;
};

struct ttrpc_client {
    struct event_loop *loop;
    struct ttrpc_link io;
    /* Open calls by stream id: a table with a power of two of buckets. Ids are consecutive odd
     * numbers, so half an id is a perfect hash. */
    struct client_call **buckets;
    size_t n_buckets, n_calls;
    uint64_t next_id;
    ttrpc_closed_fn closed;
    void *userdata;
    bool dispatching, freed;
    bool is_corked; /* requests gather, and are written together */
};

static struct client_call **bucket_of(const struct ttrpc_client *c, uint32_t stream_id)
{
    return &c->buckets[(stream_id >> 1) & (c->n_buckets - 1)];
}

static int table_grow(struct ttrpc_client *c)
{
    struct ttrpc_client grown = {.n_buckets = c->n_buckets ? c->n_buckets * 2 : FIRST_BUCKETS};

    grown.buckets = calloc(grown.n_buckets, sizeof(struct client_call *));
    if (!grown.buckets)
        return -ENOMEM;
    for (size_t i = 0; i < c->n_buckets; i++) {
        for (struct client_call *call = c->buckets[i], *next; call; call = next) {
            struct client_call **b = bucket_of(&grown, call->stream_id);
            next = call->next;
            call->next = *b;
            *b = call;
        }
    }
    free(c->buckets);
    c->buckets = grown.buckets;
    c->n_buckets = grown.n_buckets;
    return 0;
}

static int table_add(struct ttrpc_client *c, struct client_call *call)
{
    if (c->n_calls >= c->n_buckets) {
        int r = table_grow(c);
        if (r < 0)
            return r;
    }
    struct client_call **b = bucket_of(c, call->stream_id);
    call->next = *b;
    *b = call;
    c->n_calls++;
    return 0;
}

/* Takes the call out of the table; NULL if there is none (an answer that comes too late). */
static struct client_call *table_take(struct ttrpc_client *c, uint32_t stream_id)
{
    if (!c->n_buckets)
        return NULL;
    for (struct client_call **p = bucket_of(c, stream_id); *p; p = &(*p)->next) {
        struct client_call *call = *p;
        if (call->stream_id == stream_id) {
            *p = call->next;
            c->n_calls--;
            return call;
        }
    }
    return NULL;
}

/* Answers a call that was taken out of the table. The client may be gone afterwards unless it is
 * dispatching. */
static void call_answer(struct client_call *call, const struct err *e, const uint8_t *payload,
                        size_t n)
{
    ttrpc_reply_fn fn = call->fn;
    void *userdata = call->userdata;

    event_timer_disarm(&call->timer);
    free(call);
    fn(userdata, e, payload, n);
}

static void call_late(struct event_timer *timer)
{
    struct client_call *call = container_of(timer, struct client_call, timer);
    struct err e = ERR_INIT;

    table_take(call->client, call->stream_id);
    err_set(&e, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    call_answer(call, &e, NULL, 0);
}

/* With the connection closed and dispatching set. */
static void fail_all(struct ttrpc_client *c)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_UNAVAILABLE, "ttrpc: closed");
    for (size_t i = 0; i < c->n_buckets; i++) {
        struct client_call *call;
        while ((call = c->buckets[i])) {
            c->buckets[i] = call->next;
            c->n_calls--;
            call_answer(call, &e, NULL, 0);
        }
    }
}

static void client_release(struct ttrpc_client *c)
{
    ttrpc_link_done(&c->io);
    free(c->buckets);
    free(c);
}

static void handle_response(struct client_call *call, const struct ttrpc_frame *f)
{
    struct err e = ERR_INIT, wrong = ERR_INIT;
    ProtobufCMessage *m = NULL;
    Pb__Ttrpc__Response *response = NULL;

    if (f->oversize) {
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "message length %u exceed maximum message size of %u",
                f->length, TTRPC_PAYLOAD_MAX);
    } else if (f->type != TTRPC_RESPONSE) {
        err_set(&e, ERR_INTERNAL, "ttrpc: unknown message type %d received", f->type);
    } else if (pb_unpack(&pb__ttrpc__response__descriptor, f->payload, f->length, &m, &wrong) < 0) {
        err_set(&e, ERR_INTERNAL, "ttrpc: error unmarshalling response: %s", wrong.msg);
    } else {
        response = (Pb__Ttrpc__Response *)m;
        status_to_err(response->status, &e);
    }

    if (e.code != ERR_OK)
        call_answer(call, &e, NULL, 0);
    else
        call_answer(call, NULL, response->payload.data, response->payload.len);
    pb_free(m);
}

static void client_ready(struct event_fd *source, uint32_t events)
{
    struct ttrpc_client *c = container_of(source, struct ttrpc_client, io.source);
    struct ttrpc_frame f;
    int r = 0;

    c->dispatching = true;
    for (int reads = 0; (events & ~(uint32_t)EPOLLOUT) && reads < READS_PER_TURN; reads++) {
        r = ttrpc_link_read(&c->io);
        if (r <= 0)
            break;
        while (!c->freed && ttrpc_decoder_next(&c->io.in, &f) > 0) {
            struct client_call *call = table_take(c, f.stream_id);
            if (call)
                handle_response(call, &f);
        }
        if (c->freed || c->io.is_drained)
            break;
    }
    if (!c->freed && r >= 0)
        r = ttrpc_link_flush(&c->io);
    bool broken = !c->freed && r < 0;
    if (broken) {
        ttrpc_link_close(&c->io);
        fail_all(c);
    }
    /* Freed from a reply function: that has answered everything and wants no further word. */
    if (broken && !c->freed && c->closed)
        c->closed(c->userdata);
    c->dispatching = false;
    if (c->freed)
        client_release(c);
}

int ttrpc_client_new(struct event_loop *loop, int fd, ttrpc_closed_fn closed, void *userdata,
                     struct ttrpc_client **ret, struct err *e)
{
    struct ttrpc_client *c = calloc(1, sizeof(*c));

    if (!c)
        return err_oom(e);
    int r = ttrpc_link_init(&c->io, loop, fd, TTRPC_CLIENT_MAX_QUEUED_BYTES, client_ready);
    if (r < 0) {
        free(c);
        return err_errno(e, r, "use a ttrpc connection");
    }
    c->loop = loop;
    c->next_id = 1;
    c->closed = closed;
    c->userdata = userdata;
    *ret = c;
    return 0;
}

struct ttrpc_client *ttrpc_client_free(struct ttrpc_client *c)
{
    if (!c || c->freed)
        return NULL;
    bool inside = c->dispatching;
    c->freed = true;
    c->dispatching = true;
    ttrpc_link_close(&c->io);
    fail_all(c);
    /* Otherwise the dispatch that called us releases it: it still holds the frame. */
    if (!inside)
        client_release(c);
    return NULL;
}

/* Queues the frame. */
static int send_request(struct ttrpc_client *c, uint32_t stream_id,
                        const Pb__Ttrpc__Request *request, struct err *e)
{
    uint8_t *p;

    size_t n = pb__ttrpc__request__get_packed_size(request);
    int r = ttrpc_encode_header(&c->io.out, stream_id, TTRPC_REQUEST, n, &p);
    if (r == -EMSGSIZE)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "message length %zu exceed maximum message size of %u", n,
                       TTRPC_PAYLOAD_MAX);
    if (r == -ENOBUFS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "ttrpc: the peer does not read: %zu bytes wait to be sent", c->io.out.len);
    if (r < 0)
        return err_oom(e);
    pb__ttrpc__request__pack(request, p);
    buf_commit(&c->io.out, TTRPC_HEADER_SIZE + n);
    return 0;
}

static int start_call(struct ttrpc_client *c, const Pb__Ttrpc__Request *request,
                      uint64_t timeout_ms, ttrpc_reply_fn fn, void *userdata, struct err *e)
{
    if (c->freed || !ttrpc_link_is_open(&c->io))
        return err_set(e, ERR_UNAVAILABLE, "ttrpc: closed");
    if (c->n_calls >= TTRPC_CLIENT_MAX_CALLS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d calls are open on one connection",
                       TTRPC_CLIENT_MAX_CALLS);
    if (c->next_id > UINT32_MAX)
        return err_set(e, ERR_UNAVAILABLE, "ttrpc: the connection has used up its stream ids");

    struct client_call *call = calloc(1, sizeof(*call));
    if (!call)
        return err_oom(e);
    call->client = c;
    call->stream_id = (uint32_t)c->next_id;
    call->fn = fn;
    call->userdata = userdata;
    if (table_add(c, call) < 0) {
        free(call);
        return err_oom(e);
    }
    int r = send_request(c, call->stream_id, request, e);
    if (r < 0) {
        table_take(c, call->stream_id);
        free(call);
        return r;
    }
    c->next_id += 2;
    if (timeout_ms > 0)
        event_timer_arm(c->loop, &call->timer, timeout_ms, call_late);
    /* A connection that is broken is noticed by the loop, which then answers everything. */
    if (!c->dispatching && !c->is_corked)
        ttrpc_link_flush(&c->io);
    return 0;
}

int ttrpc_client_call_raw(struct ttrpc_client *c, const char *service, const char *method,
                          const char *namespace_, const void *request, size_t n,
                          uint64_t timeout_ms, ttrpc_reply_fn fn, void *userdata, struct err *e)
{
    Pb__Ttrpc__Request envelope = PB__TTRPC__REQUEST__INIT;
    Pb__Ttrpc__KeyValue metadata = PB__TTRPC__KEY_VALUE__INIT;
    Pb__Ttrpc__KeyValue *metadata_list[] = {&metadata};

    envelope.service = (char *)service;
    envelope.method = (char *)method;
    envelope.payload.data = (uint8_t *)request;
    envelope.payload.len = n;
    envelope.timeout_nano =
        (int64_t)(MIN_OF(timeout_ms, (uint64_t)INT64_MAX / NANO_PER_MS) * NANO_PER_MS);
    if (namespace_) {
        metadata.key = (char *)"containerd-namespace-ttrpc";
        metadata.value = (char *)namespace_;
        envelope.metadata = metadata_list;
        envelope.n_metadata = 1;
    }
    return start_call(c, &envelope, timeout_ms, fn, userdata, e);
}

int ttrpc_client_call(struct ttrpc_client *c, const char *service, const char *method,
                      const char *namespace_, const ProtobufCMessage *request, uint64_t timeout_ms,
                      ttrpc_reply_fn fn, void *userdata, struct err *e)
{
    uint8_t *bytes;
    size_t n;

    if (pb_pack(request, &bytes, &n) < 0)
        return err_oom(e);
    int r = ttrpc_client_call_raw(c, service, method, namespace_, bytes, n, timeout_ms, fn,
                                  userdata, e);
    free(bytes);
    return r;
}

void ttrpc_client_cork(struct ttrpc_client *c)
{
    c->is_corked = true;
}

void ttrpc_client_uncork(struct ttrpc_client *c)
{
    c->is_corked = false;
    if (!c->dispatching && ttrpc_link_is_open(&c->io))
        ttrpc_link_flush(&c->io);
}

size_t ttrpc_client_pending(const struct ttrpc_client *c)
{
    return c->n_calls;
}

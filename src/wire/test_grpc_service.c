/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/test_grpc_service.h"

#include <stdio.h>

#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "grpc.health.v1.pb-c.h"
#include "services.content.v1.pb-c.h"
#include "services.version.v1.pb-c.h"

#define READ_STEP (64 * 1024)

static void version(struct grpc_call *call, _unused_ const ProtobufCMessage *request)
{
    Pb__Version__VersionResponse response = PB__VERSION__VERSION_RESPONSE__INIT;
    const char *namespace_ = grpc_call_header(call, "containerd-namespace");

    response.version = (char *)"1";
    response.revision = (char *)str_or_empty(namespace_);
    grpc_call_reply(call, &response.base);
}

static void health_check(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Health__HealthCheckRequest *q = (const void *)request;
    Pb__Health__HealthCheckResponse response = PB__HEALTH__HEALTH_CHECK_RESPONSE__INIT;
    struct test_service *t = grpc_call_userdata(call);
    struct err e = ERR_INIT;

    atomic_fetch_add(&t->handled, 1);
    if (strcmp(q->service, "fail") == 0) {
        err_set(&e, ERR_NOT_FOUND, "service \"%s\" 100%% in \xc3\xa4: not found", q->service);
        grpc_call_finish(call, &e);
        return;
    }
    if (strcmp(q->service, "slow") == 0)
        usleep(t->slow_us);
    response.status = PB__HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    grpc_call_reply(call, &response.base);
    grpc_call_finish(call, NULL); /* only the first answer counts */
}

/* A call that waits for test_service_release(), as Tasks.Wait does. */
static void parked_cancelled(struct grpc_call *call, _unused_ void *state)
{
    struct test_service *t = grpc_call_userdata(call);
    struct grpc_call *held = NULL;

    atomic_fetch_add(&t->cancelled, 1);
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n_parked; i++)
        if (t->parked[i] == call) {
            held = call;
            t->parked[i] = t->parked[--t->n_parked];
            break;
        }
    pthread_mutex_unlock(&t->lock);
    grpc_call_unref(held);
}

static void count_release(void *state)
{
    struct test_service *t = state;
    atomic_fetch_add(&t->released, 1);
}

static void park(struct grpc_call *call, _unused_ const ProtobufCMessage *request)
{
    static const struct grpc_stream_ops ops = {
        .cancelled = parked_cancelled,
        .release = count_release,
    };
    struct test_service *t = grpc_call_userdata(call);
    bool is_full;

    grpc_call_set_stream(call, &ops, t);
    pthread_mutex_lock(&t->lock);
    is_full = t->n_parked == ARRAY_SIZE(t->parked);
    if (!is_full)
        t->parked[t->n_parked++] = grpc_call_ref(call);
    pthread_mutex_unlock(&t->lock);
    if (is_full) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "too many wait");
        grpc_call_finish(call, &e);
    }
}

size_t test_service_release(struct test_service *t, const struct err *e)
{
    Pb__Content__StatusResponse response = PB__CONTENT__STATUS_RESPONSE__INIT;
    size_t n = 0;

    for (;;) {
        struct grpc_call *call = NULL;
        pthread_mutex_lock(&t->lock);
        if (t->n_parked > 0)
            call = t->parked[--t->n_parked];
        pthread_mutex_unlock(&t->lock);
        if (!call)
            return n;
        if (e)
            grpc_call_finish(call, e);
        else
            grpc_call_reply(call, &response.base);
        grpc_call_unref(call);
        n++;
    }
}

struct read_state {
    struct test_service *t;
    int64_t offset, end;
    atomic_flag busy;
};

static void read_more(struct grpc_call *call, void *state)
{
    static const uint8_t block[READ_STEP];
    struct read_state *s = state;

    if (atomic_flag_test_and_set(&s->busy))
        atomic_fetch_add(&s->t->concurrent_errors, 1);
    while (s->offset < s->end) {
        Pb__Content__ReadContentResponse response = PB__CONTENT__READ_CONTENT_RESPONSE__INIT;
        response.offset = s->offset;
        response.data.data = (uint8_t *)block;
        response.data.len = (size_t)MIN_OF((int64_t)READ_STEP, s->end - s->offset);
        int r = grpc_call_send(call, &response.base);
        if (r >= 0)
            s->offset += (int64_t)response.data.len;
        size_t queued = grpc_call_queued_bytes(call);
        if (queued > atomic_load(&s->t->most_queued))
            atomic_store(&s->t->most_queued, queued);
        if (r <= 0) {
            atomic_flag_clear(&s->busy);
            return;
        }
    }
    atomic_flag_clear(&s->busy);
    grpc_call_finish(call, NULL);
}

static void read_writable(struct grpc_call *call, void *state)
{
    struct read_state *s = state;
    atomic_fetch_add(&s->t->writable, 1);
    read_more(call, state);
}

static void read_cancelled(_unused_ struct grpc_call *call, void *state)
{
    struct read_state *s = state;
    if (atomic_flag_test_and_set(&s->busy))
        atomic_fetch_add(&s->t->concurrent_errors, 1);
    atomic_flag_clear(&s->busy);
    atomic_fetch_add(&s->t->cancelled, 1);
}

static void read_release(void *state)
{
    struct read_state *s = state;
    atomic_fetch_add(&s->t->released, 1);
    free(s);
}

static void content_read(struct grpc_call *call, const ProtobufCMessage *request)
{
    static const struct grpc_stream_ops ops = {
        .writable = read_writable,
        .cancelled = read_cancelled,
        .release = read_release,
    };
    const Pb__Content__ReadContentRequest *q = (const void *)request;
    struct read_state *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->t = grpc_call_userdata(call);
    atomic_flag_clear(&s->busy);
    s->offset = q->offset;
    s->end = q->offset + q->size;
    if (q->offset < 0 || q->size < 0 || q->size > (INT64_C(1) << 32) ||
        q->offset > (INT64_C(1) << 60))
        s->end = s->offset;
    atomic_fetch_add(&s->t->handled, 1);
    grpc_call_set_stream(call, &ops, s);
    read_more(call, s);
}

static void write_answer(struct grpc_call *call, const Pb__Content__WriteContentRequest *q)
{
    struct read_state *s = grpc_call_state(call);
    Pb__Content__WriteContentResponse response = PB__CONTENT__WRITE_CONTENT_RESPONSE__INIT;

    if (atomic_flag_test_and_set(&s->busy))
        atomic_fetch_add(&s->t->concurrent_errors, 1);
    if (q) {
        atomic_fetch_add(&s->t->messages, 1);
        s->offset += (int64_t)q->data.len;
    }
    response.offset = s->offset;
    atomic_flag_clear(&s->busy);
    grpc_call_send(call, &response.base);
}

static void write_message(struct grpc_call *call, _unused_ void *state,
                          const ProtobufCMessage *message)
{
    write_answer(call, (const void *)message);
}

static void write_half_closed(struct grpc_call *call, _unused_ void *state)
{
    write_answer(call, NULL);
    grpc_call_finish(call, NULL);
}

static void content_write(struct grpc_call *call, const ProtobufCMessage *request)
{
    static const struct grpc_stream_ops ops = {
        .message = write_message,
        .half_closed = write_half_closed,
        .cancelled = read_cancelled,
        .release = read_release,
    };
    struct read_state *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->t = grpc_call_userdata(call);
    atomic_flag_clear(&s->busy);
    atomic_fetch_add(&s->t->handled, 1);
    grpc_call_set_stream(call, &ops, s);
    if (request)
        write_message(call, s, request);
}

void test_service_init(struct test_service *t)
{
    static const struct grpc_method version_methods[] = {
        {"Version", GRPC_UNARY, GRPC_ON_LOOP, &google__protobuf__empty__descriptor, version},
    };
    static const struct grpc_method health_methods[] = {
        {"Check", GRPC_UNARY, GRPC_ON_POOL, &pb__health__health_check_request__descriptor,
         health_check},
    };
    static const struct grpc_method content_methods[] = {
        {"ListStatuses", GRPC_BIDI, GRPC_ON_LOOP, &pb__content__write_content_request__descriptor,
         content_write},
        {"Read", GRPC_SERVER_STREAM, GRPC_ON_POOL, &pb__content__read_content_request__descriptor,
         content_read},
        {"Status", GRPC_UNARY, GRPC_ON_POOL, &pb__content__status_request__descriptor, park},
        {"Write", GRPC_BIDI, GRPC_ON_POOL, &pb__content__write_content_request__descriptor,
         content_write},
    };

    memset(t, 0, sizeof(*t));
    t->slow_us = 50000;
    pthread_mutex_init(&t->lock, NULL);
    t->services[0] = (struct grpc_service){"containerd.services.content.v1.Content",
                                           content_methods, ARRAY_SIZE(content_methods), t};
    t->services[1] = (struct grpc_service){"containerd.services.version.v1.Version",
                                           version_methods, ARRAY_SIZE(version_methods), t};
    t->services[2] = (struct grpc_service){"grpc.health.v1.Health", health_methods,
                                           ARRAY_SIZE(health_methods), t};
}

void test_service_done(struct test_service *t)
{
    pthread_mutex_destroy(&t->lock);
}

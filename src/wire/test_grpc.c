/* SPDX-License-Identifier: Apache-2.0 */
/* Server and client in one loop over a unix socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/sock.h"
#include "google/protobuf/empty.pb-c.h"
#include "grpc.health.v1.pb-c.h"
#include "services.content.v1.pb-c.h"
#include "services.version.v1.pb-c.h"
#include "wire/grpc_client.h"
#include "wire/pb.h"
#include "wire/test_grpc_service.h"

#define CHECK "/grpc.health.v1.Health/Check"
#define VERSION "/containerd.services.version.v1.Version/Version"
#define CONTENT "/containerd.services.content.v1.Content/"

struct fixture {
    char dir[32], path[64];
    struct event_loop loop;
    struct workq *pool;
    struct grpc_server *server;
    struct grpc_client *client;
    struct test_service service;
};

/* What a call was told. */
struct result {
    int messages;
    size_t bytes;
    int64_t last_offset;
    bool has_ended;
    enum err_code code;
    char text[ERR_MSG_MAX];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = ERR_INIT;
    int fd;

    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/grpc-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/s", f->dir);
    assert_int_equal(event_loop_init(&f->loop), 0);
    assert_int_equal(workq_new(4, &f->pool), 0);
    test_service_init(&f->service);
    struct grpc_server_options options = {.pool = f->pool};
    assert_int_equal(grpc_server_new(&f->loop, &options, f->service.services,
                                     ARRAY_SIZE(f->service.services), &f->server, &e),
                     0);
    assert_int_equal(sock_listen(f->path, 0600, 64, &fd), 0);
    assert_int_equal(grpc_server_listen(f->server, fd, &e), 0);
    assert_int_equal(grpc_client_new(&f->loop, f->path, 1000, &f->client, &e), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    f->client = grpc_client_free(f->client);
    if (f->server)
        grpc_server_shutdown(f->server);
    f->pool = workq_free(f->pool);
    f->server = grpc_server_free(f->server);
    assert_int_equal(f->service.n_parked, 0);
    assert_int_equal(f->service.concurrent_errors, 0);
    event_loop_done(&f->loop);
    test_service_done(&f->service);
    unlink(f->path);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void turn_until(struct fixture *f, const bool *done)
{
    for (uint64_t end = clock_monotonic_ms() + 30000; !*done;) {
        assert_true(clock_monotonic_ms() < end);
        assert_int_equal(event_loop_turn(&f->loop, 100), 0);
    }
}

static void turn_until_count(struct fixture *f, atomic_int *count, int n)
{
    for (uint64_t end = clock_monotonic_ms() + 30000; atomic_load(count) < n;) {
        assert_true(clock_monotonic_ms() < end);
        assert_int_equal(event_loop_turn(&f->loop, 10), 0);
    }
}

static void on_read(_unused_ struct grpc_client_call *call, void *userdata,
                    ProtobufCMessage *message)
{
    struct result *r = userdata;
    Pb__Content__ReadContentResponse *m = (void *)message;
    r->messages++;
    r->bytes += m->data.len;
    pb_free(message);
}

static void on_written(_unused_ struct grpc_client_call *call, void *userdata,
                       ProtobufCMessage *message)
{
    struct result *r = userdata;
    Pb__Content__WriteContentResponse *m = (void *)message;
    r->messages++;
    r->last_offset = m->offset;
    pb_free(message);
}

static void on_any(_unused_ struct grpc_client_call *call, void *userdata,
                   ProtobufCMessage *message)
{
    struct result *r = userdata;
    r->messages++;
    pb_free(message);
}

static void on_end(_unused_ struct grpc_client_call *call, void *userdata, const struct err *e)
{
    struct result *r = userdata;
    assert_false(r->has_ended);
    r->has_ended = true;
    r->code = e ? e->code : ERR_OK;
    snprintf(r->text, sizeof(r->text), "%s", e ? e->msg : "");
}

static int check(struct fixture *f, const char *service, uint64_t timeout_ms, struct err *e)
{
    Pb__Health__HealthCheckRequest request = PB__HEALTH__HEALTH_CHECK_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;

    request.service = (char *)service;
    int r = grpc_client_call_sync(f->client, CHECK, &request.base,
                                  &pb__health__health_check_response__descriptor, timeout_ms,
                                  &reply, e);
    if (r == 0)
        assert_int_equal(((Pb__Health__HealthCheckResponse *)reply)->status, 1);
    pb_free(reply);
    return r;
}

static struct grpc_client_call *start_status(struct fixture *f, uint64_t timeout_ms,
                                             struct result *r)
{
    Pb__Content__StatusRequest request = PB__CONTENT__STATUS_REQUEST__INIT;
    struct grpc_client_call *call;
    struct err e = ERR_INIT;

    assert_int_equal(grpc_client_start(f->client, CONTENT "Status", &request.base,
                                       &pb__content__status_response__descriptor, timeout_ms,
                                       on_any, on_end, r, &call, &e),
                     0);
    return call;
}

static struct grpc_client_call *start_read(struct fixture *f, int64_t size, struct result *r)
{
    Pb__Content__ReadContentRequest request = PB__CONTENT__READ_CONTENT_REQUEST__INIT;
    struct grpc_client_call *call;
    struct err e = ERR_INIT;

    request.size = size;
    assert_int_equal(grpc_client_start(f->client, CONTENT "Read", &request.base,
                                       &pb__content__read_content_response__descriptor, 0, on_read,
                                       on_end, r, &call, &e),
                     0);
    return call;
}

static void wait_parked(struct fixture *f, size_t n)
{
    for (int i = 0; i < 3000; i++) {
        pthread_mutex_lock(&f->service.lock);
        size_t is = f->service.n_parked;
        pthread_mutex_unlock(&f->service.lock);
        if (is >= n)
            return;
        event_loop_turn(&f->loop, 10);
    }
    fail_msg("calls were not parked");
}

static void test_unary_on_loop(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__Empty request = GOOGLE__PROTOBUF__EMPTY__INIT;
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(grpc_client_set_header(f->client, "containerd-namespace", "moby"), 0);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(grpc_client_call_sync(f->client, VERSION, &request.base,
                                               &pb__version__version_response__descriptor, 0,
                                               &reply, &e),
                         0);
        assert_string_equal(((Pb__Version__VersionResponse *)reply)->revision, "moby");
        pb_free(TAKE(reply));
    }
}

static void test_unary_on_pool(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;

    for (int i = 0; i < 100; i++)
        assert_int_equal(check(f, "", 0, &e), 0);
    assert_true(check(f, "fail", 0, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_string_equal(e.msg, "service \"fail\" 100% in \xc3\xa4: not found");
}

static void test_unknown(void **state)
{
    struct fixture *f = *state;
    Google__Protobuf__Empty request = GOOGLE__PROTOBUF__EMPTY__INIT;
    static const struct {
        const char *method, *text;
    } cases[] = {
        {"/x.Y/Z", "unknown service x.Y"},
        {"/grpc.health.v1.Health/Nope", "unknown method Nope for service grpc.health.v1.Health"},
        {"/nope", "malformed method name: \"/nope\""},
        {"/grpc.health.v1.Healt/Check", "unknown service grpc.health.v1.Healt"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        ProtobufCMessage *reply = NULL;
        struct err e = ERR_INIT;
        assert_true(grpc_client_call_sync(f->client, cases[i].method, &request.base,
                                          &google__protobuf__empty__descriptor, 0, &reply, &e) < 0);
        assert_int_equal(e.code, ERR_UNIMPLEMENTED);
        assert_string_equal(e.msg, cases[i].text);
    }
}

static void test_read_with_back_pressure(void **state)
{
    struct fixture *f = *state;
    struct result r = {};

    start_read(f, 64 << 20, &r);
    turn_until(f, &r.has_ended);
    assert_int_equal(r.code, ERR_OK);
    assert_int_equal(r.bytes, 64 << 20);
    assert_true(atomic_load(&f->service.writable) > 10);
    assert_true(atomic_load(&f->service.most_queued) < (1 << 20) + 128 * 1024);
    turn_until_count(f, &f->service.released, 1);
    assert_int_equal(f->service.cancelled, 0);
}

static void send_block(struct grpc_client_call *call, size_t n)
{
    Pb__Content__WriteContentRequest request = PB__CONTENT__WRITE_CONTENT_REQUEST__INIT;
    uint8_t *block = calloc(1, n ? n : 1);
    struct err e = ERR_INIT;

    assert_non_null(block);
    request.data.data = block;
    request.data.len = n;
    assert_int_equal(grpc_client_call_send(call, &request.base, &e), 0);
    free(block);
}

static void run_bidi(struct fixture *f, const char *method)
{
    struct grpc_client_call *call;
    struct result r = {};
    struct err e = ERR_INIT;

    assert_int_equal(grpc_client_open(f->client, method,
                                      &pb__content__write_content_response__descriptor, on_written,
                                      on_end, &r, &call, &e),
                     0);
    for (int i = 0; i < 40; i++) {
        send_block(call, 1 << 20);
        while (grpc_client_call_queued_bytes(call) > 2 << 20)
            event_loop_turn(&f->loop, 100);
    }
    grpc_client_call_close_send(call);
    turn_until(f, &r.has_ended);
    assert_int_equal(r.code, ERR_OK);
    assert_int_equal(r.messages, 41);
    assert_int_equal(r.last_offset, 40 << 20);
    turn_until_count(f, &f->service.released, 1);
}

static void test_bidi_on_pool(void **state)
{
    run_bidi(*state, CONTENT "Write");
}

static void test_bidi_on_loop(void **state)
{
    run_bidi(*state, CONTENT "ListStatuses");
}

static void test_bidi_without_message(void **state)
{
    struct fixture *f = *state;
    struct grpc_client_call *call;
    struct result r = {};
    struct err e = ERR_INIT;

    assert_int_equal(grpc_client_open(f->client, CONTENT "Write",
                                      &pb__content__write_content_response__descriptor, on_written,
                                      on_end, &r, &call, &e),
                     0);
    grpc_client_call_close_send(call);
    turn_until(f, &r.has_ended);
    assert_int_equal(r.code, ERR_OK);
    assert_int_equal(r.messages, 1);
}

static void test_parked(void **state)
{
    struct fixture *f = *state;
    struct result r[20] = {};
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(r); i++)
        start_status(f, 0, &r[i]);
    wait_parked(f, ARRAY_SIZE(r));
    assert_int_equal(check(f, "", 0, &e), 0); /* nobody is held up */
    assert_int_equal(test_service_release(&f->service, NULL), ARRAY_SIZE(r));
    for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
        turn_until(f, &r[i].has_ended);
        assert_int_equal(r[i].code, ERR_OK);
        assert_int_equal(r[i].messages, 1);
    }
    turn_until_count(f, &f->service.released, ARRAY_SIZE(r));
    assert_int_equal(f->service.cancelled, 0);
}

static void test_deadline(void **state)
{
    struct fixture *f = *state;
    struct result r = {};
    struct err e = ERR_INIT;

    start_status(f, 30, &r);
    turn_until(f, &r.has_ended);
    assert_int_equal(r.code, ERR_DEADLINE_EXCEEDED);
    assert_string_equal(r.text, "context deadline exceeded");
    turn_until_count(f, &f->service.released, 1);
    assert_int_equal(f->service.cancelled, 1);

    assert_true(check(f, "slow", 10, &e) < 0);
    assert_int_equal(e.code, ERR_DEADLINE_EXCEEDED);
    assert_int_equal(check(f, "slow", 10000, &e), 0);
}

static void test_cancel(void **state)
{
    struct fixture *f = *state;
    struct result parked = {}, reading = {};
    struct err e = ERR_INIT;

    struct grpc_client_call *call = start_status(f, 0, &parked);
    wait_parked(f, 1);
    grpc_client_call_cancel(call);
    assert_true(parked.has_ended);
    assert_int_equal(parked.code, ERR_CANCELED);
    turn_until_count(f, &f->service.released, 1);
    assert_int_equal(f->service.cancelled, 1);

    call = start_read(f, INT64_C(1) << 32, &reading);
    while (reading.messages < 10)
        event_loop_turn(&f->loop, 100);
    grpc_client_call_cancel(call);
    turn_until_count(f, &f->service.released, 2);
    assert_int_equal(f->service.cancelled, 2);
    assert_int_equal(check(f, "", 0, &e), 0);
}

static void test_message_limit(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    /* tag, four bytes of length, the string */
    size_t n = GRPC_MESSAGE_MAX - 5;
    char *service = malloc(n + 2);

    assert_non_null(service);
    memset(service, 'x', n + 1);
    service[n] = '\0';
    assert_int_equal(check(f, service, 0, &e), 0);
    service[n] = 'x';
    service[n + 1] = '\0';
    assert_true(check(f, service, 0, &e) < 0);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    free(service);
}

static void test_connection_lost_while_parked(void **state)
{
    struct fixture *f = *state;
    struct result parked = {}, reading = {};
    struct err e = ERR_INIT;

    start_status(f, 0, &parked);
    start_read(f, INT64_C(1) << 32, &reading);
    wait_parked(f, 1);
    f->client = grpc_client_free(f->client);
    assert_int_equal(parked.code, ERR_UNAVAILABLE);
    assert_int_equal(reading.code, ERR_UNAVAILABLE);
    turn_until_count(f, &f->service.released, 2);
    assert_int_equal(f->service.cancelled, 2);
    assert_int_equal(grpc_server_connections(f->server), 0);
    assert_int_equal(grpc_client_new(&f->loop, f->path, 1000, &f->client, &e), 0);
    assert_int_equal(check(f, "", 0, &e), 0);
}

static void test_connection_lost_while_running(void **state)
{
    struct fixture *f = *state;
    Pb__Health__HealthCheckRequest request = PB__HEALTH__HEALTH_CHECK_REQUEST__INIT;
    struct grpc_client_call *call;
    struct result r[8] = {};
    struct err e = ERR_INIT;

    request.service = (char *)"slow";
    for (size_t i = 0; i < ARRAY_SIZE(r); i++)
        assert_int_equal(grpc_client_start(f->client, CHECK, &request.base,
                                           &pb__health__health_check_response__descriptor, 0,
                                           on_any, on_end, &r[i], &call, &e),
                         0);
    turn_until_count(f, &f->service.handled, 1);
    f->client = grpc_client_free(f->client);
    for (int i = 0; i < 5; i++)
        event_loop_turn(&f->loop, 10);
    assert_int_equal(grpc_server_connections(f->server), 0);
}

static void test_shutdown(void **state)
{
    struct fixture *f = *state;
    struct result parked = {}, reading = {};
    struct err e = ERR_INIT;

    start_status(f, 0, &parked);
    wait_parked(f, 1);
    start_read(f, 1000, &reading);
    turn_until(f, &reading.has_ended);
    grpc_server_shutdown(f->server);
    turn_until(f, &parked.has_ended);
    assert_int_equal(parked.code, ERR_UNAVAILABLE);
    assert_string_equal(parked.text, "server is shutting down");
    turn_until_count(f, &f->service.released, 2);
    for (int i = 0; i < 300 && grpc_server_connections(f->server) > 0; i++)
        event_loop_turn(&f->loop, 10);
    assert_int_equal(grpc_server_connections(f->server), 0);
    assert_true(check(f, "", 0, &e) < 0);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
}

/* Answers that come after the server is gone touch nothing. */
static void test_answer_after_free(void **state)
{
    struct fixture *f = *state;
    struct result parked = {};

    start_status(f, 0, &parked);
    wait_parked(f, 1);
    pthread_mutex_lock(&f->service.lock);
    struct grpc_call *call = grpc_call_ref(f->service.parked[0]);
    pthread_mutex_unlock(&f->service.lock);
    f->client = grpc_client_free(f->client);
    f->pool = workq_free(f->pool);
    f->server = grpc_server_free(f->server);
    assert_true(grpc_call_is_cancelled(call));
    assert_int_equal(f->service.released, 1);
    grpc_call_finish(call, NULL);
    grpc_call_unref(call);
}

static void *answer_thread(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < 2000; i++) {
        test_service_release(&f->service, NULL);
        usleep(50);
    }
    return NULL;
}

/* Answers of another thread race with cancellations. */
static void test_answers_and_cancels_race(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    enum { ROUNDS = 50, CALLS = 10 };

    assert_int_equal(pthread_create(&thread, NULL, answer_thread, f), 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct result r[CALLS] = {};
        struct grpc_client_call *calls[CALLS];
        for (int k = 0; k < CALLS; k++)
            calls[k] = start_status(f, 0, &r[k]);
        for (int k = 0; k < i % 7; k++)
            event_loop_turn(&f->loop, 1);
        for (int k = 0; k < CALLS; k++)
            if (!r[k].has_ended)
                grpc_client_call_cancel(calls[k]);
    }
    pthread_join(thread, NULL);
    for (int i = 0; i < 100; i++)
        event_loop_turn(&f->loop, 5);
    test_service_release(&f->service, NULL);
}

static void test_no_server(void **state)
{
    struct fixture *f = *state;
    struct grpc_client *c = NULL;
    struct err e = ERR_INIT;

    assert_true(grpc_client_new(&f->loop, "/tmp/no/such/socket", 100, &c, &e) < 0);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_string_equal(e.msg, "failed to dial \"/tmp/no/such/socket\": no such file or directory");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    /* clang-format off */
    const struct CMUnitTest tests[] = {
        TEST(test_unary_on_loop),
        TEST(test_unary_on_pool),
        TEST(test_unknown),
        TEST(test_read_with_back_pressure),
        TEST(test_bidi_on_pool),
        TEST(test_bidi_on_loop),
        TEST(test_bidi_without_message),
        TEST(test_parked),
        TEST(test_deadline),
        TEST(test_cancel),
        TEST(test_message_limit),
        TEST(test_connection_lost_while_parked),
        TEST(test_connection_lost_while_running),
        TEST(test_shutdown),
        TEST(test_answer_after_free),
        TEST(test_answers_and_cancels_race),
        TEST(test_no_server),
    };
    /* clang-format on */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

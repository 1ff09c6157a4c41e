/* SPDX-License-Identifier: Apache-2.0 */
/* The client, against our server where it is to work and against frames by hand where it is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/socket.h>

#include "base/event.h"
#include "base/fs.h"
#include "base/sock.h"
#include "ttrpc.pb-c.h"
#include "wire/pb.h"
#include "wire/ttrpc.h"
#include "wire/ttrpc_client.h"
#include "wire/ttrpc_server.h"

struct answer {
    int times;
    enum err_code code;
    char text[128]; /* of the error, or what came back */
};

static struct event_loop loop;
static struct ttrpc_server *server;
static struct ttrpc_client *client;
static struct ttrpc_call *parked;
static int peer_fd, n_closed;
static bool free_when_closed;

static void echo(struct ttrpc_call *call, const ProtobufCMessage *request)
{
    assert_string_equal(ttrpc_call_metadata(call, "containerd-namespace-ttrpc"), "ns");
    ttrpc_call_reply(call, request);
}

static void fail_call(struct ttrpc_call *call, _unused_ const ProtobufCMessage *request)
{
    struct err e = ERR_INIT;

    assert_null(ttrpc_call_metadata(call, "containerd-namespace-ttrpc"));
    err_set(&e, ERR_NOT_FOUND, "task x: not found");
    ttrpc_call_fail(call, &e);
}

static void park(struct ttrpc_call *call, _unused_ const ProtobufCMessage *request)
{
    parked = call;
}

#define M(name_, fn)                                                              \
    {                                                                             \
        .name = name_, .request = &pb__ttrpc__key_value__descriptor, .handle = fn \
    }
static const struct ttrpc_method methods[] = {M("Echo", echo), M("Fail", fail_call),
                                              M("Park", park)};
static const struct ttrpc_service services[] = {
    {.name = "test.Echo", .methods = methods, .n_methods = ARRAY_SIZE(methods)},
};

static void on_closed(void *userdata)
{
    assert_ptr_equal(userdata, &loop);
    n_closed++;
    if (free_when_closed)
        client = ttrpc_client_free(client);
}

static void on_reply(void *userdata, const struct err *e, const uint8_t *payload, size_t n)
{
    struct answer *a = userdata;

    a->times++;
    a->code = e ? e->code : ERR_OK;
    const void *text = e ? (const void *)e->msg : payload;
    size_t len = MIN_OF(e ? strlen(e->msg) : n, sizeof(a->text) - 1);
    if (len > 0)
        memcpy(a->text, text, len);
    a->text[len] = 0;
}

static int setup(_unused_ void **state)
{
    int pair[2];

    n_closed = 0;
    free_when_closed = false;
    parked = NULL;
    if (event_loop_init(&loop) < 0 || sock_pair(pair) < 0 ||
        ttrpc_server_new(&loop, -EBADF, services, ARRAY_SIZE(services), NULL, &server, NULL) < 0 ||
        ttrpc_client_new(&loop, pair[0], on_closed, &loop, &client, NULL) < 0)
        return -1;
    peer_fd = pair[1];
    return 0;
}

static int teardown(_unused_ void **state)
{
    client = ttrpc_client_free(client);
    server = ttrpc_server_free(server);
    if (parked) {
        struct err e = ERR_INIT;
        ttrpc_call_fail(parked, &e);
    }
    close_fd(&peer_fd);
    event_loop_done(&loop);
    return 0;
}

/* Puts our own server at the other end. */
static void serve(void)
{
    assert_int_equal(ttrpc_server_add(server, TAKE_FD(peer_fd), NULL), 0);
}

static void turns(void)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(event_loop_turn(&loop, 0), 0);
}

static int call(const char *method, const char *namespace_, uint64_t timeout_ms, struct answer *a)
{
    Pb__Ttrpc__KeyValue m = PB__TTRPC__KEY_VALUE__INIT;

    m.key = (char *)"hello";
    return ttrpc_client_call(client, "test.Echo", method, namespace_, &m.base, timeout_ms, on_reply,
                             a, NULL);
}

static void expect(const struct answer *a, enum err_code code, const char *text)
{
    assert_int_equal(a->times, 1);
    assert_int_equal(a->code, code);
    assert_string_equal(a->text, text);
}

static void replies_and_errors(_unused_ void **state)
{
    struct answer a = {0}, b = {0}, c = {0};

    serve();
    assert_int_equal(call("Echo", "ns", 0, &a), 0);
    assert_int_equal(call("Fail", NULL, 1000, &b), 0);
    assert_int_equal(call("None", NULL, 0, &c), 0);
    assert_int_equal(ttrpc_client_pending(client), 3);
    turns();
    expect(&a, ERR_OK, "\x0a\x05hello");
    expect(&b, ERR_NOT_FOUND, "task x: not found");
    expect(&c, ERR_UNIMPLEMENTED, "method None");
    assert_int_equal(ttrpc_client_pending(client), 0);
}

/* The peer has nothing to wake up for before both are there. */
static void corked(_unused_ void **state)
{
    struct answer a = {0}, b = {0};
    char bytes[4096];

    ttrpc_client_cork(client);
    assert_int_equal(call("Echo", "ns", 0, &a), 0);
    assert_int_equal(call("Fail", NULL, 1000, &b), 0);
    assert_int_equal(recv(peer_fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK), -1);
    assert_int_equal(errno, EAGAIN);
    ttrpc_client_uncork(client);
    assert_true(recv(peer_fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK) > 0);
    serve();
    turns();
    expect(&a, ERR_OK, "\x0a\x05hello");
    expect(&b, ERR_NOT_FOUND, "task x: not found");
}

static void many_calls(_unused_ void **state)
{
    static struct answer answers[5000];

    memset(answers, 0, sizeof(answers));
    serve();
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
            assert_int_equal(call("Echo", "ns", 60000, &answers[i]), 0);
            if (i % 500 == 0)
                turns();
        }
        turns();
        turns();
    }
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
        assert_int_equal(answers[i].times, 2);
}

static void deadlines(_unused_ void **state)
{
    Pb__Ttrpc__KeyValue reply = PB__TTRPC__KEY_VALUE__INIT;
    struct answer a = {0}, b = {0};

    serve();
    assert_int_equal(call("Park", NULL, 20, &a), 0);
    for (int i = 0; i < 100 && a.times == 0; i++)
        event_loop_turn(&loop, 50);
    expect(&a, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    /* The answer that comes too late hits nobody. */
    ttrpc_call_reply(TAKE(parked), &reply.base);
    assert_int_equal(call("Echo", "ns", 0, &b), 0);
    turns();
    assert_int_equal(a.times, 1);
    expect(&b, ERR_OK, "\x0a\x05hello");
}

static void lost_connection(_unused_ void **state)
{
    struct answer a = {0}, b = {0};
    struct err e = ERR_INIT;

    assert_int_equal(call("Park", NULL, 0, &a), 0);
    assert_int_equal(call("Park", NULL, 100000, &b), 0);
    close_fd(&peer_fd);
    turns();
    expect(&a, ERR_UNAVAILABLE, "ttrpc: closed");
    expect(&b, ERR_UNAVAILABLE, "ttrpc: closed");
    assert_int_equal(n_closed, 1);
    turns();
    assert_int_equal(n_closed, 1);
    assert_true(ttrpc_client_call_raw(client, "s", "m", NULL, NULL, 0, 0, on_reply, &a, &e) < 0);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_string_equal(e.msg, "ttrpc: closed");
}

static void freed_when_closed(_unused_ void **state)
{
    struct answer a = {0};

    free_when_closed = true;
    assert_int_equal(call("Park", NULL, 0, &a), 0);
    close_fd(&peer_fd);
    turns();
    expect(&a, ERR_UNAVAILABLE, "ttrpc: closed");
    assert_null(client);
}

static void free_answers_everything(_unused_ void **state)
{
    struct answer a = {0};

    assert_int_equal(call("Park", NULL, 100000, &a), 0);
    client = ttrpc_client_free(client);
    expect(&a, ERR_UNAVAILABLE, "ttrpc: closed");
    turns();
    assert_int_equal(n_closed, 0);
}

static void free_client(void *userdata, const struct err *e, const uint8_t *payload, size_t n)
{
    client = ttrpc_client_free(client);
    on_reply(userdata, e, payload, n); /* what came is still there */
}

static void reply_function_may_free(_unused_ void **state)
{
    struct answer a = {0}, b = {0};

    serve();
    assert_int_equal(ttrpc_client_call_raw(client, "test.Echo", "Echo", "ns", "\x0a\x02hi", 4, 0,
                                           free_client, &a, NULL),
                     0);
    assert_int_equal(call("Park", NULL, 0, &b), 0);
    turns();
    expect(&a, ERR_OK, "\x0a\x02hi");
    expect(&b, ERR_UNAVAILABLE, "ttrpc: closed");
    assert_null(client);
    assert_int_equal(n_closed, 0);
}

static void call_again(void *userdata, const struct err *e, const uint8_t *payload, size_t n)
{
    struct answer *a = userdata;

    on_reply(a, e, payload, n);
    if (a->times < 5 && call("Echo", "ns", 0, a) < 0)
        a->code = ERR_INTERNAL;
    else if (a->times == 1)
        assert_int_equal(ttrpc_client_pending(client), 1);
}

static void reply_function_may_call(_unused_ void **state)
{
    struct answer a = {0};

    serve();
    assert_int_equal(
        ttrpc_client_call_raw(client, "test.Echo", "Echo", "ns", NULL, 0, 0, call_again, &a, NULL),
        0);
    turns();
    assert_int_equal(a.times, 2);
    assert_int_equal(a.code, ERR_OK);
}

static void send_frame(uint32_t id, uint8_t type, const void *payload, size_t n)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(TTRPC_PAYLOAD_MAX);

    assert_int_equal(ttrpc_encode(&b, id, type, payload, n), 0);
    assert_int_equal(write(peer_fd, buf_head(&b), b.len), (int)b.len);
}

static void hostile_peer(_unused_ void **state)
{
    static const uint8_t oversize[TTRPC_HEADER_SIZE] = {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 5, 2, 0};
    struct answer a = {0}, b = {0}, c = {0}, d = {0};

    assert_int_equal(call("a", NULL, 0, &a), 0);
    assert_int_equal(call("b", NULL, 0, &b), 0);
    assert_int_equal(call("c", NULL, 0, &c), 0);
    assert_int_equal(call("d", NULL, 0, &d), 0);
    send_frame(0, TTRPC_RESPONSE, "", 0); /* of nobody */
    send_frame(2, TTRPC_RESPONSE, "", 0);
    send_frame(99, TTRPC_RESPONSE, "", 0);
    send_frame(1, TTRPC_RESPONSE, "\xff", 1);
    send_frame(3, TTRPC_DATA, "x", 1);
    send_frame(7, TTRPC_RESPONSE, "\x12\x01x", 3); /* without a status */
    send_frame(7, TTRPC_RESPONSE, "\x12\x01y", 3); /* a second answer */
    assert_int_equal(write(peer_fd, oversize, sizeof(oversize)), sizeof(oversize));
    turns();
    assert_int_equal(a.code, ERR_INTERNAL);
    expect(&b, ERR_INTERNAL, "ttrpc: unknown message type 3 received");
    expect(&c, ERR_RESOURCE_EXHAUSTED,
           "message length 4294967295 exceed maximum message size of 4194304");
    expect(&d, ERR_OK, "x");
}

static void queue_is_limited(_unused_ void **state)
{
    _free_ char *body = calloc(1, TTRPC_PAYLOAD_MAX);
    struct answer a = {0};
    struct err e = ERR_INIT;
    int r = 0, sent = 0;

    assert_true(ttrpc_client_call_raw(client, "s", "m", NULL, body, TTRPC_PAYLOAD_MAX, 0, on_reply,
                                      &a, &e) < 0);
    assert_string_equal(e.msg, "message length 4194315 exceed maximum message size of 4194304");
    /* A peer that does not read. */
    while (sent < 100 && (r = ttrpc_client_call_raw(client, "s", "m", NULL, body, 1 << 20, 0,
                                                    on_reply, &a, &e)) == 0)
        sent++;
    assert_true(r < 0 && sent >= 15 && sent < 20);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(a.times, 0);
    client = ttrpc_client_free(client);
    assert_int_equal(a.times, sent);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(replies_and_errors),
        T(corked),
        T(many_calls),
        T(deadlines),
        T(lost_connection),
        T(freed_when_closed),
        T(free_answers_everything),
        T(reply_function_may_free),
        T(reply_function_may_call),
        T(hostile_peer),
        T(queue_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

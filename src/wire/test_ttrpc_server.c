/* SPDX-License-Identifier: Apache-2.0 */
/* The server against a peer that writes frames by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fs.h"
#include "base/sock.h"
#include "base/str.h"
#include "ttrpc.pb-c.h"
#include "wire/pb.h"
#include "wire/ttrpc.h"
#include "wire/ttrpc_server.h"

#define PARKED_MAX 2000

static struct event_loop loop;
static struct ttrpc_server *server;
static struct ttrpc_call *parked[PARKED_MAX];
static size_t n_parked;
static int peer_fd;
static struct ttrpc_decoder peer_in;
static int n_flushed;
static uint64_t seen_timeout_ms;

/* The request and the reply of all methods is a KeyValue. */
static void echo(struct ttrpc_call *call, const ProtobufCMessage *request)
{
    assert_ptr_equal(ttrpc_call_userdata(call), &loop);
    assert_string_equal(ttrpc_call_service(call), "test.Echo");
    seen_timeout_ms = ttrpc_call_timeout_ms(call);
    ttrpc_call_reply(call, request);
}

static void fail_call(struct ttrpc_call *call, _unused_ const ProtobufCMessage *request)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_NOT_FOUND, "metadata %s: not found",
            str_or_empty(ttrpc_call_metadata(call, "containerd-namespace-ttrpc")));
    ttrpc_call_fail(call, &e);
}

static void park(struct ttrpc_call *call, _unused_ const ProtobufCMessage *request)
{
    assert_true(n_parked < PARKED_MAX);
    parked[n_parked++] = call;
}

static void large(struct ttrpc_call *call, const ProtobufCMessage *request)
{
    Pb__Ttrpc__KeyValue reply = PB__TTRPC__KEY_VALUE__INIT;
    uint64_t n = 0;

    str_to_u64(((const Pb__Ttrpc__KeyValue *)request)->key, &n);
    reply.value = malloc(n + 1);
    memset(reply.value, 'v', n);
    reply.value[n] = 0;
    ttrpc_call_reply(call, &reply.base);
    free(reply.value);
}

static void free_server(struct ttrpc_call *call, const ProtobufCMessage *request)
{
    ttrpc_call_reply(call, request);
    server = ttrpc_server_free(server);
}

#define M(name_, fn)                                                              \
    {                                                                             \
        .name = name_, .request = &pb__ttrpc__key_value__descriptor, .handle = fn \
    }
static const struct ttrpc_method methods[] = {
    M("Echo", echo),   M("Fail", fail_call), M("Free", free_server),
    M("Large", large), M("Park", park),
};
static const struct ttrpc_service services[] = {
    {.name = "test.Echo", .methods = methods, .n_methods = ARRAY_SIZE(methods)},
};

static void flushed(_unused_ void *userdata)
{
    n_flushed++;
}

static int connect_peer(void)
{
    int pair[2];

    assert_int_equal(sock_pair(pair), 0);
    assert_int_equal(fs_set_nonblock(pair[0], true), 0);
    assert_int_equal(ttrpc_server_add(server, pair[1], NULL), 0);
    return pair[0];
}

static int setup(_unused_ void **state)
{
    n_parked = 0;
    n_flushed = 0;
    if (event_loop_init(&loop) < 0 ||
        ttrpc_server_new(&loop, -EBADF, services, ARRAY_SIZE(services), &loop, &server, NULL) < 0)
        return -1;
    ttrpc_server_on_flushed(server, flushed);
    ttrpc_decoder_init(&peer_in);
    peer_fd = connect_peer();
    return 0;
}

static int teardown(_unused_ void **state)
{
    struct err e = ERR_INIT;

    server = ttrpc_server_free(server);
    while (n_parked > 0)
        ttrpc_call_fail(parked[--n_parked], &e);
    ttrpc_decoder_done(&peer_in);
    close_fd(&peer_fd);
    event_loop_done(&loop);
    return 0;
}

static void turns(void)
{
    for (int i = 0; i < 3; i++)
        assert_int_equal(event_loop_turn(&loop, 0), 0);
}

static void send_bytes(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    while (n > 0) {
        ssize_t w = write(peer_fd, p, n);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
        assert_int_equal(event_loop_turn(&loop, 0), 0);
    }
}

static void send_frame(uint32_t id, uint8_t type, const void *payload, size_t n)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(TTRPC_PAYLOAD_MAX + TTRPC_HEADER_SIZE);

    assert_int_equal(ttrpc_encode(&b, id, type, payload, n), 0);
    send_bytes(buf_head(&b), b.len);
}

static void send_call(uint32_t id, const char *service, const char *method, const char *key)
{
    Pb__Ttrpc__KeyValue body = PB__TTRPC__KEY_VALUE__INIT;
    Pb__Ttrpc__KeyValue meta = PB__TTRPC__KEY_VALUE__INIT;
    Pb__Ttrpc__KeyValue *metas[] = {&meta};
    Pb__Ttrpc__Request r = PB__TTRPC__REQUEST__INIT;
    uint8_t *bytes;
    size_t n;

    meta.key = (char *)"containerd-namespace-ttrpc";
    meta.value = (char *)"ns";
    body.key = (char *)key;
    assert_int_equal(pb_pack(&body.base, &r.payload.data, &r.payload.len), 0);
    r.service = (char *)service;
    r.method = (char *)method;
    r.timeout_nano = 1500001;
    r.metadata = metas;
    r.n_metadata = 1;
    assert_int_equal(pb_pack(&r.base, &bytes, &n), 0);
    send_frame(id, TTRPC_REQUEST, bytes, n);
    free(bytes);
    free(r.payload.data);
}

/* 1 and the next frame, 0: nothing came, -1: the connection was closed. */
static int receive(struct ttrpc_frame *f)
{
    for (int idle = 0; idle < 5;) {
        uint8_t *space;
        size_t size;
        if (ttrpc_decoder_next(&peer_in, f) > 0)
            return 1;
        assert_int_equal(event_loop_turn(&loop, 0), 0);
        assert_int_equal(ttrpc_decoder_space(&peer_in, &space, &size), 0);
        ssize_t n = read(peer_fd, space, size);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return -1;
        if (n > 0)
            ttrpc_decoder_fed(&peer_in, (size_t)n);
        else
            idle++;
    }
    return 0;
}

static void expect_error(uint32_t id, int code, const char *message)
{
    ProtobufCMessage *m;
    struct ttrpc_frame f;

    assert_int_equal(receive(&f), 1);
    assert_int_equal(f.stream_id, id);
    assert_int_equal(f.type, TTRPC_RESPONSE);
    assert_int_equal(f.flags, 0);
    assert_int_equal(pb_unpack(&pb__ttrpc__response__descriptor, f.payload, f.length, &m, NULL), 0);
    const Pb__Ttrpc__Response *r = (const Pb__Ttrpc__Response *)m;
    assert_non_null(r->status);
    assert_int_equal(r->status->code, code);
    if (code)
        assert_string_equal(r->status->message, message);
    else
        assert_int_equal(r->payload.len, strlen(message) ? strlen(message) + 2 : 0);
    pb_free(m);
}

static void expect_reply(uint32_t id, const char *key)
{
    expect_error(id, 0, key);
}

static void calls_are_answered(_unused_ void **state)
{
    send_call(1, "test.Echo", "Echo", "hello");
    expect_reply(1, "hello");
    assert_int_equal(seen_timeout_ms, 2);
    assert_true(n_flushed > 0);
    assert_true(ttrpc_server_is_flushed(server));
    send_call(3, "test.Echo", "Fail", "");
    expect_error(3, ERR_NOT_FOUND, "metadata ns: not found");
    send_call(5, "test.Echo", "Echo", "");
    expect_reply(5, "");
}

static void empty_reply_has_a_status(_unused_ void **state)
{
    struct ttrpc_frame f;

    send_call(1, "test.Echo", "Echo", "");
    assert_int_equal(receive(&f), 1);
    assert_int_equal(f.length, 2);
    assert_memory_equal(f.payload, "\x0a\x00", 2);
}

static void answers_come_in_any_order(_unused_ void **state)
{
    struct err e = ERR_INIT;

    send_call(1, "test.Echo", "Park", "");
    send_call(3, "test.Echo", "Echo", "while one waits");
    expect_reply(3, "while one waits");
    send_call(5, "test.Echo", "Park", "");
    turns();
    assert_int_equal(n_parked, 2);
    err_set(&e, ERR_ABORTED, "five");
    ttrpc_call_fail(parked[1], &e);
    err_set(&e, ERR_ABORTED, "one");
    ttrpc_call_fail(parked[0], &e);
    n_parked = 0;
    expect_error(5, ERR_ABORTED, "five");
    expect_error(1, ERR_ABORTED, "one");
}

static void unknown_names(_unused_ void **state)
{
    send_call(1, "test.None", "Echo", "");
    expect_error(1, ERR_UNIMPLEMENTED, "service test.None");
    send_call(3, "test.Echo", "None", "");
    expect_error(3, ERR_UNIMPLEMENTED, "method None");
    send_call(5, "", "", "");
    expect_error(5, ERR_UNIMPLEMENTED, "service ");

    /* A name of a megabyte comes back cut. */
    struct ttrpc_frame f;
    _free_ char *name = malloc(1 << 20);
    memset(name, 'n', (1 << 20) - 1);
    name[(1 << 20) - 1] = 0;
    send_call(7, name, "x", "");
    assert_int_equal(receive(&f), 1);
    assert_true(f.length < 4096);
}

static void stream_ids(_unused_ void **state)
{
    static const char odd[] = "StreamID must be odd for client initiated streams";
    static const char increment[] = "StreamID cannot be re-used and must increment";

    send_call(0, "test.Echo", "Echo", "");
    expect_error(0, ERR_INVALID_ARGUMENT, odd);
    send_call(2, "test.Echo", "Echo", "");
    expect_error(2, ERR_INVALID_ARGUMENT, odd);
    send_call(77, "test.Echo", "Echo", "");
    expect_reply(77, "");
    send_call(77, "test.Echo", "Echo", "");
    expect_error(77, ERR_INVALID_ARGUMENT, increment);
    send_call(1, "test.Echo", "Echo", "");
    expect_error(1, ERR_INVALID_ARGUMENT, increment);
    send_call(0x7fffffff, "test.Echo", "Echo", "x");
    expect_reply(0x7fffffff, "x");
    send_call(0xffffffff, "test.Echo", "Echo", "x");
    expect_reply(0xffffffff, "x");
    send_call(1, "test.Echo", "Echo", "");
    expect_error(1, ERR_INVALID_ARGUMENT, increment);
}

static void odd_frames(_unused_ void **state)
{
    static const uint8_t flags[] = {0, 0, 0, 0, 0, 0, 0, 3, TTRPC_REQUEST, 0xff};

    send_frame(1, 0, "x", 1);
    send_frame(1, 4, "x", 1);
    send_frame(1, 255, "x", 1);
    send_frame(1, TTRPC_RESPONSE, "x", 1);
    send_frame(1, TTRPC_DATA, "x", 1);
    expect_error(1, ERR_INVALID_ARGUMENT, "StreamID is no longer active");
    send_bytes(flags, sizeof(flags));
    expect_error(3, ERR_UNIMPLEMENTED, "service ");

    /* Data on an open call: one answer, not two. */
    send_call(5, "test.Echo", "Park", "");
    send_frame(5, TTRPC_DATA, "x", 1);
    expect_error(5, ERR_INVALID_ARGUMENT, "StreamID is no longer active");
    struct err e = ERR_INIT;
    assert_int_equal(n_parked, 1);
    ttrpc_call_fail(parked[--n_parked], &e);
    struct ttrpc_frame f;
    assert_int_equal(receive(&f), 0);
}

static void bad_payloads(_unused_ void **state)
{
    static const char envelope[] = "\x0a\x09test.Echo\x12\x04"
                                   "Echo\x1a\x02\xff\xff";
    static const char late[] = "\x0a\x09test.Echo\x12\x04"
                               "Echo\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    ProtobufCMessage *m;
    struct ttrpc_frame f;

    send_frame(1, TTRPC_REQUEST, "\xff\xff\xff", 3);
    assert_int_equal(receive(&f), 1);
    assert_int_equal(pb_unpack(&pb__ttrpc__response__descriptor, f.payload, f.length, &m, NULL), 0);
    const Pb__Ttrpc__Response *r = (const Pb__Ttrpc__Response *)m;
    assert_int_equal(r->status->code, ERR_INVALID_ARGUMENT);
    assert_int_equal(strncmp(r->status->message, "unmarshal request error: ", 25), 0);
    pb_free(m);

    send_frame(3, TTRPC_REQUEST, envelope, sizeof(envelope) - 1);
    assert_int_equal(receive(&f), 1);
    assert_int_equal(pb_unpack(&pb__ttrpc__response__descriptor, f.payload, f.length, &m, NULL), 0);
    r = (const Pb__Ttrpc__Response *)m;
    assert_int_equal(r->status->code, ERR_INTERNAL);
    assert_int_equal(strncmp(r->status->message, "ttrpc: error unmarshalling payload: ", 36), 0);
    pb_free(m);

    send_frame(5, TTRPC_REQUEST, late, sizeof(late) - 1);
    expect_error(5, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
}

static void oversize_is_drained(_unused_ void **state)
{
    uint8_t header[TTRPC_HEADER_SIZE] = {0, 0x40, 0, 1, 0, 0, 0, 9, TTRPC_REQUEST, 0};
    _free_ char *body = calloc(1, TTRPC_PAYLOAD_MAX + 1);

    send_bytes(header, sizeof(header));
    send_bytes(body, TTRPC_PAYLOAD_MAX + 1);
    expect_error(9, ERR_RESOURCE_EXHAUSTED,
                 "message length 4194305 exceed maximum message size of 4194304");
    send_call(11, "test.Echo", "Echo", "still here");
    expect_reply(11, "still here");
}

static void oversize_reply_is_an_error(_unused_ void **state)
{
    send_call(1, "test.Echo", "Large", "4194304");
    expect_error(1, ERR_RESOURCE_EXHAUSTED,
                 "message length 4194309 exceed maximum message size of 4194304");
    send_call(3, "test.Echo", "Echo", "x");
    expect_reply(3, "x");
}

static void peer_that_never_reads_is_cut(_unused_ void **state)
{
    struct ttrpc_frame f;
    int other = connect_peer();

    for (uint32_t i = 0; i < 20 && write(peer_fd, "", 0) == 0; i++) {
        /* Written straight: the connection goes while we do. */
        _cleanup_(buf_done) struct buf b = BUF_INIT(4096);
        static const char request[] = "\x0a\x09test.Echo\x12\x05Large\x1a\x09\x0a\x07"
                                      "1000000";
        assert_int_equal(ttrpc_encode(&b, 2 * i + 1, TTRPC_REQUEST, request, sizeof(request) - 1),
                         0);
        if (write(peer_fd, buf_head(&b), b.len) < 0)
            break;
        turns();
    }
    assert_true(ttrpc_server_is_flushed(server)); /* nothing is kept for it */
    int r;
    while ((r = receive(&f)) > 0)
        ;
    assert_int_equal(r, -1);
    close(peer_fd);
    peer_fd = other;
    ttrpc_decoder_done(&peer_in);
    ttrpc_decoder_init(&peer_in);
    send_call(1, "test.Echo", "Echo", "others are well");
    expect_reply(1, "others are well");
}

static void pipelined_calls(_unused_ void **state)
{
    /* All written before one answer is read. */
    for (uint32_t i = 0; i < 1000; i++)
        send_call(2 * i + 1, "test.Echo", "Echo", "k");
    for (uint32_t i = 0; i < 1000; i++)
        expect_reply(2 * i + 1, "k");
}

static void open_calls_are_limited(_unused_ void **state)
{
    char text[64];

    for (uint32_t i = 0; i < TTRPC_SERVER_MAX_CALLS; i++)
        send_call(2 * i + 1, "test.Echo", "Park", "");
    turns();
    assert_int_equal(n_parked, TTRPC_SERVER_MAX_CALLS);
    send_call(9001, "test.Echo", "Echo", "");
    snprintf(text, sizeof(text), "more than %d calls are open on one connection",
             TTRPC_SERVER_MAX_CALLS);
    expect_error(9001, ERR_RESOURCE_EXHAUSTED, text);
}

static void connection_goes_before_the_answer(_unused_ void **state)
{
    Pb__Ttrpc__KeyValue reply = PB__TTRPC__KEY_VALUE__INIT;

    send_call(1, "test.Echo", "Park", "");
    turns();
    assert_int_equal(n_parked, 1);
    close_fd(&peer_fd);
    turns();
    ttrpc_call_reply(parked[--n_parked], &reply.base);
}

static void handler_may_free_the_server(_unused_ void **state)
{
    struct ttrpc_frame f;

    send_call(1, "test.Echo", "Park", "");
    send_call(3, "test.Echo", "Free", "last words");
    assert_null(server);
    expect_reply(3, "last words");
    assert_int_equal(receive(&f), -1);
}

static void connections_are_limited(_unused_ void **state)
{
    static int fds[TTRPC_SERVER_MAX_CONNECTIONS];
    struct err e = ERR_INIT;
    int pair[2];

    for (int i = 1; i < TTRPC_SERVER_MAX_CONNECTIONS; i++)
        fds[i] = connect_peer();
    assert_int_equal(sock_pair(pair), 0);
    assert_true(ttrpc_server_add(server, pair[1], &e) < 0);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    for (int i = 1; i < TTRPC_SERVER_MAX_CONNECTIONS; i++)
        close(fds[i]);
    for (int i = 0; i < 20; i++)
        turns();
    assert_int_equal(ttrpc_server_add(server, pair[1], &e), 0);
    close(pair[0]);
}

/* On a real socket: as ourselves it is served, as somebody else closed without a byte. */
static void strangers_are_refused(_unused_ void **state)
{
    char dir[] = "/tmp/test-ttrpc-XXXXXX", path[64];
    int listener, status;

    if (geteuid() != 0)
        skip();
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/s", dir);
    assert_int_equal(sock_listen(path, 0666, 8, &listener), 0);
    server = ttrpc_server_free(server);
    assert_int_equal(
        ttrpc_server_new(&loop, listener, services, ARRAY_SIZE(services), &loop, &server, NULL), 0);
    close_fd(&peer_fd);
    assert_int_equal(sock_connect(path, 1000, &peer_fd), 0);
    send_call(1, "test.Echo", "Echo", "mine");
    expect_reply(1, "mine");

    assert_int_equal(chmod(dir, 0755), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd;
        char byte;
        if (setgid(65534) < 0 || setuid(65534) < 0 || sock_connect(path, 1000, &fd) < 0)
            _exit(1);
        fs_set_nonblock(fd, false);
        _exit(read(fd, &byte, 1) == 0 ? 0 : 2);
    }
    uint64_t deadline = clock_monotonic_ms() + 10000;
    while (waitpid(pid, &status, WNOHANG) == 0 && clock_monotonic_ms() < deadline)
        event_loop_turn(&loop, 10);
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(fs_rm_rf(AT_FDCWD, dir), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(calls_are_answered),
        T(empty_reply_has_a_status),
        T(answers_come_in_any_order),
        T(unknown_names),
        T(stream_ids),
        T(odd_frames),
        T(bad_payloads),
        T(oversize_is_drained),
        T(oversize_reply_is_an_error),
        T(peer_that_never_reads_is_cut),
        T(pipelined_calls),
        T(open_calls_are_limited),
        T(connection_goes_before_the_answer),
        T(handler_may_free_the_server),
        T(connections_are_limited),
        T(strangers_are_refused),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that no library would make: frames by hand against a connection of the server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/sock.h"
#include "wire/grpc_conn.h"
#include "wire/grpc_dispatch.h"
#include "wire/grpc_frame.h"
#include "wire/test_grpc_service.h"

#define CHECK "/grpc.health.v1.Health/Check"
#define WRITE "/containerd.services.content.v1.Content/Write"
#define READ "/containerd.services.content.v1.Content/Read"

struct fixture {
    struct event_loop loop;
    struct grpc_server *server;
    struct test_service service;
    nghttp2_hd_inflater *inflater;
    struct buf in;
    int fd;
    bool has_ended; /* the server has closed the connection */
    int64_t goaway; /* its code, -1: none */
};

/* What came on a stream. */
struct answer {
    int http_status, grpc_status;
    int64_t reset; /* -1: none */
    bool has_ended;
    char text[256];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct grpc_server_options options = {.max_recv_message = 100000, .max_send_message = 100000};
    struct err e = ERR_INIT;
    int fds[2];

    assert_non_null(f);
    assert_int_equal(event_loop_init(&f->loop), 0);
    test_service_init(&f->service);
    assert_int_equal(grpc_server_new(&f->loop, &options, f->service.services,
                                     ARRAY_SIZE(f->service.services), &f->server, &e),
                     0);
    assert_int_equal(sock_pair(fds), 0);
    grpc_server_enter(f->server);
    assert_int_equal(grpc_conn_new(f->server, fds[0]), 0);
    grpc_server_leave(f->server);
    f->fd = fds[1];
    f->goaway = -1;
    buf_init(&f->in, 64 << 20);
    assert_int_equal(nghttp2_hd_inflate_new(&f->inflater), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close_fd(&f->fd);
    grpc_server_free(f->server);
    assert_int_equal(f->service.concurrent_errors, 0);
    nghttp2_hd_inflate_del(f->inflater);
    buf_done(&f->in);
    event_loop_done(&f->loop);
    test_service_done(&f->service);
    free(f);
    return 0;
}

/* Lets the server work and takes in what it says. */
static void turn(struct fixture *f)
{
    uint8_t bytes[65536];
    ssize_t n;

    assert_int_equal(event_loop_turn(&f->loop, 0), 0);
    while ((n = recv(f->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        assert_int_equal(buf_append(&f->in, bytes, (size_t)n), 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        f->has_ended = true;
}

static void put(struct fixture *f, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    while (n > 0 && !f->has_ended) {
        ssize_t sent = send(f->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        } else if (errno != EAGAIN) {
            break;
        }
        turn(f);
    }
    turn(f);
}

static void put_frame(struct fixture *f, uint8_t type, uint8_t flags, uint32_t stream,
                      const void *payload, size_t n)
{
    uint8_t frame[9 + 20000] = {
        (uint8_t)(n >> 16),
        (uint8_t)(n >> 8),
        (uint8_t)n,
        type,
        flags,
        (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16),
        (uint8_t)(stream >> 8),
        (uint8_t)stream,
    };

    assert_true(n <= sizeof(frame) - 9);
    if (n > 0)
        memcpy(frame + 9, payload, n);
    put(f, frame, 9 + n);
}

static void greet(struct fixture *f)
{
    put(f, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    put_frame(f, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

/* A literal without indexing; lengths below 127. */
static size_t hpack(uint8_t *out, const char *name, const char *value)
{
    size_t n = 0;
    out[n++] = 0;
    out[n++] = (uint8_t)strlen(name);
    memcpy(out + n, name, strlen(name));
    n += strlen(name);
    out[n++] = (uint8_t)strlen(value);
    memcpy(out + n, value, strlen(value));
    return n + strlen(value);
}

/* The headers of a call; `name` replaces one of them or comes behind them. */
static void put_request(struct fixture *f, uint32_t stream, uint8_t flags, const char *path,
                        const char *name, const char *value)
{
    const char *fields[][2] = {
        {":method", "POST"},
        {":scheme", "http"},
        {":path", path},
        {":authority", "localhost"},
        {"content-type", "application/grpc"},
        {"te", "trailers"},
        {NULL, NULL},
    };
    uint8_t block[1024];
    size_t n = 0;
    bool is_replaced = !name;

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (!is_replaced && (!fields[i][0] || strcmp(fields[i][0], name) == 0)) {
            n += hpack(block + n, name, value);
            is_replaced = true;
        } else if (fields[i][0]) {
            n += hpack(block + n, fields[i][0], fields[i][1]);
        }
    }
    put_frame(f, NGHTTP2_HEADERS, flags | NGHTTP2_FLAG_END_HEADERS, stream, block, n);
}

static void put_message(struct fixture *f, uint32_t stream, uint8_t flags, uint8_t compressed,
                        uint32_t length, size_t n)
{
    uint8_t bytes[GRPC_PREFIX_SIZE + 256] = {};

    grpc_prefix_write(bytes, length);
    bytes[0] = compressed;
    put_frame(f, NGHTTP2_DATA, flags, stream, bytes, GRPC_PREFIX_SIZE + n);
}

static void inflate(struct fixture *f, const uint8_t *bytes, size_t n, struct answer *a)
{
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t used = nghttp2_hd_inflate_hd2(f->inflater, &nv, &flags, bytes, n, 1);
        assert_true(used >= 0);
        bytes += used;
        n -= (size_t)used;
        if (a && flags & NGHTTP2_HD_INFLATE_EMIT) {
            if (strcmp((char *)nv.name, ":status") == 0)
                a->http_status = (int)strtol((char *)nv.value, NULL, 10);
            if (strcmp((char *)nv.name, "grpc-status") == 0)
                a->grpc_status = (int)strtol((char *)nv.value, NULL, 10);
            if (strcmp((char *)nv.name, "grpc-message") == 0)
                snprintf(a->text, sizeof(a->text), "%s", (char *)nv.value);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL)
            break;
    }
    nghttp2_hd_inflate_end_headers(f->inflater);
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Looks through the frames that came. */
static void take_frames(struct fixture *f, uint32_t stream, struct answer *a)
{
    while (f->in.len >= 9) {
        const uint8_t *p = buf_head(&f->in);
        size_t n = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
        if (f->in.len < 9 + n)
            return;
        bool is_ours = a && (be32(p + 5) & 0x7fffffff) == stream;
        if (p[3] == NGHTTP2_HEADERS)
            inflate(f, p + 9, n, is_ours ? a : NULL);
        if (is_ours && (p[3] == NGHTTP2_HEADERS || p[3] == NGHTTP2_DATA))
            a->has_ended |= p[4] & NGHTTP2_FLAG_END_STREAM;
        if (is_ours && p[3] == NGHTTP2_RST_STREAM)
            a->reset = be32(p + 9);
        if (p[3] == NGHTTP2_GOAWAY)
            f->goaway = be32(p + 9 + 4);
        buf_consume(&f->in, 9 + n);
    }
}

static struct answer wait_answer(struct fixture *f, uint32_t stream)
{
    struct answer a = {.grpc_status = -1, .reset = -1};

    for (uint64_t end = clock_monotonic_ms() + 10000; clock_monotonic_ms() < end; usleep(200)) {
        turn(f);
        take_frames(f, stream, &a);
        if (a.has_ended || a.reset >= 0 || f->has_ended)
            break;
    }
    return a;
}

static void expect_goaway(struct fixture *f, int64_t code)
{
    for (uint64_t end = clock_monotonic_ms() + 10000; clock_monotonic_ms() < end && !f->has_ended;)
        turn(f);
    take_frames(f, 0, NULL);
    assert_true(f->has_ended);
    assert_int_equal(f->goaway, code);
    for (int i = 0; i < 3; i++)
        turn(f);
    assert_int_equal(grpc_server_connections(f->server), 0);
}

static void test_refused_heads(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name, *value;
        int http_status, grpc_status;
    } cases[] = {
        {"x-ok", "1", 200, ERR_OK},
        {"content-type", "application/grpc+proto", 200, ERR_OK},
        {"content-type", "text/plain", 415, ERR_INVALID_ARGUMENT},
        {"content-type", "application/grpcx", 415, ERR_INVALID_ARGUMENT},
        {":method", "GET", 405, ERR_INTERNAL},
        {"grpc-timeout", "junk", 400, ERR_INTERNAL},
        {"grpc-timeout", "123456789S", 400, ERR_INTERNAL},
        {"grpc-timeout", "0n", 200, ERR_DEADLINE_EXCEEDED},
        {"grpc-encoding", "gzip", 200, ERR_UNIMPLEMENTED},
        {"grpc-encoding", "identity", 200, ERR_OK},
        {":path", "/nope", 200, ERR_UNIMPLEMENTED},
        {":path", "/", 200, ERR_UNIMPLEMENTED},
    };

    greet(f);
    for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t stream = 2 * i + 1;
        put_request(f, stream, 0, CHECK, cases[i].name, cases[i].value);
        put_message(f, stream, NGHTTP2_FLAG_END_STREAM, 0, 0, 0);
        struct answer a = wait_answer(f, stream);
        assert_int_equal(a.http_status, cases[i].http_status);
        assert_int_equal(a.grpc_status, cases[i].grpc_status);
    }
}

static void test_refused_messages(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint8_t compressed;
        uint32_t length;
        size_t n;
        int grpc_status;
    } cases[] = {
        {0, 0, 0, ERR_OK},
        {1, 0, 0, ERR_UNIMPLEMENTED},
        {2, 0, 0, ERR_INTERNAL},
        {0, 100001, 0, ERR_RESOURCE_EXHAUSTED},
        {0, UINT32_MAX, 200, ERR_RESOURCE_EXHAUSTED},
        {0, 100000, 200, ERR_INTERNAL}, /* ends too early */
        {0, 0, 1, ERR_INTERNAL},        /* and something behind it */
        {0, 0, 5, ERR_INTERNAL},        /* a second message */
        {0, 3, 3, ERR_INTERNAL},        /* field number 0 */
    };

    greet(f);
    for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint32_t stream = 2 * i + 1;
        put_request(f, stream, 0, CHECK, NULL, NULL);
        put_message(f, stream, NGHTTP2_FLAG_END_STREAM, cases[i].compressed, cases[i].length,
                    cases[i].n);
        struct answer a = wait_answer(f, stream);
        assert_int_equal(a.http_status, 200);
        assert_int_equal(a.grpc_status, cases[i].grpc_status);
    }
    put_request(f, 101, NGHTTP2_FLAG_END_STREAM, CHECK, NULL, NULL);
    assert_int_equal(wait_answer(f, 101).grpc_status, ERR_INTERNAL);
}

static void test_answer_over_the_limit(void **state)
{
    struct fixture *f = *state;

    f->server->options.max_send_message = 1;
    greet(f);
    put_request(f, 1, 0, CHECK, NULL, NULL);
    put_message(f, 1, NGHTTP2_FLAG_END_STREAM, 0, 0, 0);
    struct answer a = wait_answer(f, 1);
    assert_int_equal(a.grpc_status, ERR_RESOURCE_EXHAUSTED);
    assert_string_equal(a.text, "grpc: trying to send message larger than max (2 vs. 1)");
}

static void test_too_many_headers(void **state)
{
    struct fixture *f = *state;
    uint8_t block[18000];
    size_t n = 0;

    greet(f);
    n += hpack(block + n, ":method", "POST");
    n += hpack(block + n, ":scheme", "http");
    n += hpack(block + n, ":path", CHECK);
    n += hpack(block + n, ":authority", "localhost");
    n += hpack(block + n, "content-type", "application/grpc");
    while (n < 15000)
        n += hpack(block + n, "k", "v");
    put_frame(f, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, block, n);
    assert_int_equal(wait_answer(f, 1).grpc_status, ERR_RESOURCE_EXHAUSTED);
}

static void test_deadline_of_a_reader_without_window(void **state)
{
    struct fixture *f = *state;
    static const uint8_t window_0[] = {0, 4, 0, 0, 0, 0};

    put(f, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    put_frame(f, NGHTTP2_SETTINGS, 0, 0, window_0, sizeof(window_0));
    put_request(f, 1, 0, READ, "grpc-timeout", "50m");
    uint8_t read[] = {0, 0, 0, 0, 4, 0x18, 0x80, 0x80, 0x40}; /* size: 1 MiB */
    put_frame(f, NGHTTP2_DATA, NGHTTP2_FLAG_END_STREAM, 1, read, sizeof(read));
    assert_int_equal(wait_answer(f, 1).reset, NGHTTP2_CANCEL);
    turn(f);
    assert_int_equal(f->service.cancelled, 1);
    assert_int_equal(f->service.released, 1);
}

static void test_ping_flood(void **state)
{
    struct fixture *f = *state;

    greet(f);
    for (int i = 0; i < 5000 && !f->has_ended; i++)
        put_frame(f, NGHTTP2_PING, 0, 0, "01234567", 8);
    expect_goaway(f, NGHTTP2_ENHANCE_YOUR_CALM);
}

/* As many as grpc-go sends while it reads are no flood. */
static void test_polite_pings(void **state)
{
    struct fixture *f = *state;

    greet(f);
    for (int i = 0; i < 900; i++)
        put_frame(f, NGHTTP2_PING, 0, 0, "01234567", 8);
    put_request(f, 1, 0, CHECK, NULL, NULL);
    put_message(f, 1, NGHTTP2_FLAG_END_STREAM, 0, 0, 0);
    assert_int_equal(wait_answer(f, 1).grpc_status, ERR_OK);
}

static void test_settings_flood(void **state)
{
    struct fixture *f = *state;

    greet(f);
    for (int i = 0; i < 5000 && !f->has_ended; i++)
        put_frame(f, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
    expect_goaway(f, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void test_many_settings(void **state)
{
    struct fixture *f = *state;
    uint8_t entries[6 * 33] = {};

    greet(f);
    put_frame(f, NGHTTP2_SETTINGS, 0, 0, entries, sizeof(entries));
    expect_goaway(f, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void test_rapid_reset(void **state)
{
    struct fixture *f = *state;

    greet(f);
    for (uint32_t i = 0; i < 5000 && !f->has_ended; i++) {
        put_request(f, 2 * i + 1, 0, WRITE, NULL, NULL);
        put_frame(f, NGHTTP2_RST_STREAM, 0, 2 * i + 1, "\0\0\0\10", 4);
    }
    expect_goaway(f, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void test_empty_data_flood(void **state)
{
    struct fixture *f = *state;

    greet(f);
    put_request(f, 1, 0, WRITE, NULL, NULL);
    for (int i = 0; i < 5000 && !f->has_ended; i++)
        put_frame(f, NGHTTP2_DATA, 0, 1, NULL, 0);
    expect_goaway(f, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void test_continuation_flood(void **state)
{
    struct fixture *f = *state;
    uint8_t block[64];
    size_t n = hpack(block, ":method", "POST");

    greet(f);
    put_frame(f, NGHTTP2_HEADERS, 0, 1, block, n);
    n = hpack(block, "k", "v");
    for (int i = 0; i < 1000 && !f->has_ended; i++)
        put_frame(f, NGHTTP2_CONTINUATION, 0, 1, block, n);
    expect_goaway(f, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void test_broken_frames(void **state)
{
    static const struct {
        uint8_t type, flags;
        uint32_t stream;
        const char *payload;
        size_t n;
        uint32_t code;
    } cases[] = {
        {NGHTTP2_DATA, 0, 5, "x", 1, NGHTTP2_PROTOCOL_ERROR}, /* an idle stream */
        {NGHTTP2_PING, 0, 0, "1234567", 7, NGHTTP2_FRAME_SIZE_ERROR},
        {NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, "\x80", 1, NGHTTP2_COMPRESSION_ERROR},
        {NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2, "\x82", 1, NGHTTP2_PROTOCOL_ERROR},
        {NGHTTP2_WINDOW_UPDATE, 0, 0, "\0\0\0\0", 4, NGHTTP2_PROTOCOL_ERROR},
        {NGHTTP2_WINDOW_UPDATE, 0, 0, "\x7f\xff\xff\xff", 4, NGHTTP2_FLOW_CONTROL_ERROR},
        {NGHTTP2_PUSH_PROMISE, NGHTTP2_FLAG_END_HEADERS, 1, "\0\0\0\2", 4, NGHTTP2_PROTOCOL_ERROR},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct fixture *f = NULL;
        setup((void **)&f);
        greet(f);
        put_frame(f, cases[i].type, cases[i].flags, cases[i].stream, cases[i].payload, cases[i].n);
        expect_goaway(f, cases[i].code);
        teardown((void **)&f);
    }
    (void)state;
}

static void test_not_http2(void **state)
{
    struct fixture *f = *state;

    put(f, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    expect_goaway(f, -1);
}

static void test_client_that_does_not_read(void **state)
{
    struct fixture *f = *state;
    uint8_t request[512];
    size_t n = 9;

    greet(f);
    n += hpack(request + n, ":method", "POST");
    n += hpack(request + n, ":scheme", "http");
    n += hpack(request + n, ":path", "/a/b");
    n += hpack(request + n, ":authority", "localhost");
    n += hpack(request + n, "content-type", "application/grpc");
    for (uint32_t i = 0; i < 200000 && grpc_server_connections(f->server) > 0; i++) {
        uint32_t stream = 2 * i + 1;
        uint8_t head[9] = {0, 0, (uint8_t)(n - 9), NGHTTP2_HEADERS, 5};
        for (int k = 0; k < 4; k++)
            head[5 + k] = (uint8_t)(stream >> (24 - 8 * k));
        memcpy(request, head, sizeof(head));
        if (send(f->fd, request, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
            break;
        event_loop_turn(&f->loop, 0);
    }
    for (uint64_t end = clock_monotonic_ms() + 10000;
         clock_monotonic_ms() < end && grpc_server_connections(f->server) > 0;)
        event_loop_turn(&f->loop, 10);
    assert_int_equal(grpc_server_connections(f->server), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    /* clang-format off */
    const struct CMUnitTest tests[] = {
        TEST(test_refused_heads),
        TEST(test_refused_messages),
        TEST(test_answer_over_the_limit),
        TEST(test_too_many_headers),
        TEST(test_deadline_of_a_reader_without_window),
        TEST(test_ping_flood),
        TEST(test_polite_pings),
        TEST(test_settings_flood),
        TEST(test_many_settings),
        TEST(test_rapid_reset),
        TEST(test_empty_data_flood),
        TEST(test_continuation_flood),
        cmocka_unit_test(test_broken_frames),
        TEST(test_not_http2),
        TEST(test_client_that_does_not_read),
    };
    /* clang-format on */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "base/fs.h"
#include "shim/copy.h"

#define SIZE 300000

static bool has_ended;

static void on_ended(struct copy *c)
{
    has_ended = true;
}

static void make_pipe(int fds[2], bool nonblock_read, bool nonblock_write)
{
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fs_set_nonblock(fds[0], nonblock_read);
    fs_set_nonblock(fds[1], nonblock_write);
}

/* Pipe to pipe, with a reader that takes little at a time: nothing is lost, nothing waits. */
static void test_slow_reader(void **state)
{
    struct event_loop loop;
    struct copy c = {};
    int in[2], out[2];
    size_t written = 0, got = 0;
    uint8_t chunk[1000];

    assert_int_equal(event_loop_init(&loop), 0);
    make_pipe(in, true, true);
    make_pipe(out, true, true);
    has_ended = false;
    assert_int_equal(copy_start(&c, &loop, in[0], out[1], on_ended), 0);
    for (int i = 0; i < 100000 && got < SIZE; i++) {
        while (written < SIZE) {
            uint8_t byte = (uint8_t)(written * 7 >> 3);
            if (write(in[1], &byte, 1) != 1)
                break;
            written++;
        }
        if (written == SIZE && in[1] >= 0)
            close_fd(&in[1]);
        event_loop_turn(&loop, 0);
        ssize_t n = read(out[0], chunk, sizeof(chunk));
        for (ssize_t j = 0; j < n; j++, got++)
            assert_int_equal(chunk[j], (uint8_t)(got * 7 >> 3));
    }
    for (int i = 0; i < 10 && !has_ended; i++)
        event_loop_turn(&loop, 0);
    assert_int_equal(got, SIZE);
    assert_true(has_ended);
    assert_true(c.src_ended);
    assert_int_equal(c.moved, SIZE);
    close(in[0]);
    close(out[0]);
    close(out[1]);
    event_loop_done(&loop);
}

/* Pipes through which much goes become wider, others and those that are wide already do not. */
static void test_wide_pipes(void **state)
{
    struct event_loop loop;
    struct copy c = {};
    int in[2], out[2];
    static uint8_t chunk[65536];

    assert_int_equal(event_loop_init(&loop), 0);
    make_pipe(in, true, true);
    make_pipe(out, true, true);
    int narrow = fcntl(in[0], F_GETPIPE_SZ);
    int widest = fcntl(out[0], F_SETPIPE_SZ, 512 * 1024);
    assert_int_equal(copy_start(&c, &loop, in[0], out[1], on_ended), 0);
    for (size_t got = 0; got < 2 * 1024 * 1024;) {
        if (c.moved < 900000)
            assert_int_equal(fcntl(in[0], F_GETPIPE_SZ), narrow);
        assert_true(write(in[1], chunk, sizeof(chunk)) > 0);
        event_loop_turn(&loop, 0);
        ssize_t n = read(out[0], chunk, sizeof(chunk));
        got += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(fcntl(in[0], F_GETPIPE_SZ), 256 * 1024);
    assert_int_equal(fcntl(out[0], F_GETPIPE_SZ), widest);
    copy_stop(&c);
    close(in[0]);
    close(in[1]);
    close(out[0]);
    close(out[1]);
    event_loop_done(&loop);
}

/* A file cannot be polled, and one for appending not be spliced to. */
static void test_append(void **state)
{
    char path[] = "/tmp/test-copy-XXXXXX";
    struct event_loop loop;
    struct copy c = {};
    int in[2];
    char text[16] = {};

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    fcntl(fd, F_SETFL, O_APPEND);
    assert_int_equal(event_loop_init(&loop), 0);
    make_pipe(in, true, false);
    has_ended = false;
    assert_int_equal(copy_start(&c, &loop, in[0], fd, on_ended), 0);
    assert_int_equal(write(in[1], "hello", 5), 5);
    event_loop_turn(&loop, 100);
    close(in[1]);
    for (int i = 0; i < 10 && !has_ended; i++)
        event_loop_turn(&loop, 100);
    assert_true(has_ended);
    assert_int_equal(pread(fd, text, sizeof(text), 0), 5);
    assert_string_equal(text, "hello");
    close(in[0]);
    close(fd);
    unlink(path);
    event_loop_done(&loop);
}

/* Nor can a file that is read: the pipe behind it says when there is room. */
static void test_from_file(void **state)
{
    char path[] = "/tmp/test-copy-XXXXXX";
    struct event_loop loop;
    struct copy c = {};
    int out[2];
    size_t got = 0;
    uint8_t chunk[5000];

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < SIZE; i++) {
        uint8_t byte = (uint8_t)(i * 7 >> 3);
        assert_int_equal(write(fd, &byte, 1), 1);
    }
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(event_loop_init(&loop), 0);
    make_pipe(out, true, true);
    has_ended = false;
    assert_int_equal(copy_start(&c, &loop, fd, out[1], on_ended), 0);
    for (int i = 0; i < 1000 && !(has_ended && got == SIZE); i++) {
        event_loop_turn(&loop, 0);
        ssize_t n = read(out[0], chunk, sizeof(chunk));
        for (ssize_t j = 0; j < n; j++, got++)
            assert_int_equal(chunk[j], (uint8_t)(got * 7 >> 3));
    }
    assert_int_equal(got, SIZE);
    assert_true(has_ended);
    assert_true(c.src_ended);
    /* From file to file nothing would ever wake it. */
    assert_int_equal(copy_start(&c, &loop, fd, fd, on_ended), -EPERM);
    close(fd);
    close(out[0]);
    close(out[1]);
    unlink(path);
    event_loop_done(&loop);
}

/* A reader that has gone ends the copy, and that is told apart. */
static void test_broken_pipe(void **state)
{
    struct event_loop loop;
    struct copy c = {};
    int in[2], out[2];

    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(event_loop_init(&loop), 0);
    make_pipe(in, true, false);
    make_pipe(out, true, true);
    has_ended = false;
    assert_int_equal(copy_start(&c, &loop, in[0], out[1], on_ended), 0);
    close(out[0]);
    assert_int_equal(write(in[1], "x", 1), 1);
    for (int i = 0; i < 10 && !has_ended; i++)
        event_loop_turn(&loop, 100);
    assert_true(has_ended);
    assert_false(c.src_ended);
    close(in[0]);
    close(in[1]);
    close(out[1]);
    event_loop_done(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_reader), cmocka_unit_test(test_wide_pipes),
        cmocka_unit_test(test_append),      cmocka_unit_test(test_from_file),
        cmocka_unit_test(test_broken_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

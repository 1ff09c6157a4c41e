/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/sock.h"

static char dir[64], path[128];

static int setup(_unused_ void **state)
{
    snprintf(dir, sizeof(dir), "/tmp/test-sock-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof(path), "%s/s", dir);
    return 0;
}

static int teardown(_unused_ void **state)
{
    return fs_rm_rf(AT_FDCWD, dir);
}

static void listen_connect_accept(_unused_ void **state)
{
    int listener, client, server;
    struct stat st;
    struct sock_peer peer;

    mode_t before = umask(077);
    assert_int_equal(sock_listen(path, 0660, 8, &listener), 0);
    umask(before);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_int_equal(sock_accept(listener, &server), -EAGAIN);
    assert_int_equal(sock_connect(path, 1000, &client), 0);
    assert_true(fcntl(client, F_GETFL) & O_NONBLOCK);
    assert_int_equal(sock_accept(listener, &server), 0);
    assert_true(fcntl(server, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(server, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(sock_peer(server, &peer), 0);
    assert_int_equal(peer.pid, getpid());
    assert_int_equal(peer.uid, geteuid());
    close(server);
    close(client);
    close(listener);
}

static void stale_socket_is_replaced(_unused_ void **state)
{
    int first, second;

    assert_int_equal(sock_listen(path, 0600, 8, &first), 0);
    assert_int_equal(sock_listen(path, 0600, 8, &second), -EADDRINUSE);
    close(first);
    assert_int_equal(sock_listen(path, 0600, 8, &second), 0);
    close(second);
    unlink(path);
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, path, "x", 1, 0600, false), 0);
    assert_int_equal(sock_listen(path, 0600, 8, &second), -EADDRINUSE);
    assert_true(fs_exists(AT_FDCWD, path)); /* not ours to remove */
}

static void bad_paths(_unused_ void **state)
{
    char longest[SOCK_PATH_MAX + 2];
    int fd;

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = 0;
    assert_int_equal(sock_listen(longest, 0600, 8, &fd), -ENAMETOOLONG);
    assert_int_equal(sock_connect(longest, 0, &fd), -ENAMETOOLONG);
    assert_int_equal(sock_connect("", 0, &fd), -EINVAL);
    assert_int_equal(sock_connect(path, 100, &fd), -ENOENT);
}

static void full_backlog_is_waited_for(_unused_ void **state)
{
    int listener, clients[8], fd = -1, n = 0;

    assert_int_equal(sock_listen(path, 0600, 0, &listener), 0);
    while (n < 8 && sock_connect(path, 0, &clients[n]) == 0)
        n++;
    assert_in_range(n, 1, 7);
    assert_int_equal(sock_connect(path, 0, &fd), -EAGAIN);
    uint64_t begin = clock_monotonic_ms();
    assert_int_equal(sock_connect(path, 50, &fd), -ETIMEDOUT);
    assert_in_range(clock_monotonic_ms() - begin, 45, 2000);
    while (n > 0)
        close(clients[--n]);
    close(listener);
}

static void fds_travel(_unused_ void **state)
{
    int pair[2], got;
    char bytes[16];

    assert_int_equal(sock_pair(pair), 0);
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(sock_send_fd(pair[0], "ab", 2, null_fd), 2);
    assert_int_equal(sock_recv_fd(pair[1], bytes, sizeof(bytes), &got), 2);
    assert_true(got >= 0 && got != null_fd);
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    close(got);
    assert_int_equal(sock_send_fd(pair[0], "c", 1, -EBADF), 1);
    assert_int_equal(sock_recv_fd(pair[1], bytes, sizeof(bytes), &got), 1);
    assert_int_equal(got, -EBADF);
    assert_int_equal(sock_send_fd(pair[0], "", 0, null_fd), -EINVAL);

    /* A peer that sends more than one: the surplus does not stay open here. */
    int two[2] = {null_fd, null_fd};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(two))];
    } control = {.room = {0}};
    struct iovec iov = {.iov_base = bytes, .iov_len = 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(two));
    memcpy(CMSG_DATA(&control.header), two, sizeof(two));
    assert_int_equal(sendmsg(pair[0], &msg, 0), 1);
    assert_int_equal(sock_recv_fd(pair[1], bytes, sizeof(bytes), &got), 1);
    int next = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(next, got + 1);
    close(next);
    close(got);

    close(null_fd);
    close(pair[0]);
    assert_int_equal(sock_recv_fd(pair[1], bytes, sizeof(bytes), &got), 0);
    assert_int_equal(sock_send_fd(pair[1], "x", 1, -EBADF), -EPIPE);
    close(pair[1]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(listen_connect_accept),
        T(stale_socket_is_replaced),
        T(bad_paths),
        T(full_backlog_is_waited_for),
        T(fds_travel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

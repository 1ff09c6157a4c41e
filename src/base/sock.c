/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sock.h"

#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/fs.h"

static int fill_address(const char *path, struct sockaddr_un *ret)
{
    size_t n = strlen(path);

    if (n == 0)
        return -EINVAL;
    if (n > SOCK_PATH_MAX)
        return -ENAMETOOLONG;
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret->sun_path, path, n + 1);
    return 0;
}

/* Removes the file of a socket whose listener is gone. */
static int remove_stale(const char *path)
{
    struct stat st;
    int fd;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    int r = sock_connect(path, 0, &fd);
    if (r == 0)
        close(fd);
    if (r == -ENOENT)
        return 0;
    if (r != -ECONNREFUSED)
        return -EADDRINUSE; /* somebody listens, or we cannot tell */
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    return 0;
}

int sock_listen(const char *path, mode_t mode, int backlog, int *ret_fd)
{
    struct sockaddr_un address;
    struct stat st;
    int r = fill_address(path, &address);
    if (r < 0)
        return r;

    _close_ int fd = neg_errno(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0)
        return fd;
    /* The file takes the mode of the socket's own inode (less the umask), so there is no moment at
     * which it is open to more than `mode` says and the umask of other threads is left alone. */
    if (fchmod(fd, mode) < 0)
        return -errno;

    r = neg_errno(bind(fd, (struct sockaddr *)&address, sizeof(address)));
    if (r == -EADDRINUSE) {
        r = remove_stale(path);
        if (r < 0)
            return r;
        r = neg_errno(bind(fd, (struct sockaddr *)&address, sizeof(address)));
    }
    if (r < 0)
        return r;

    if (lstat(path, &st) < 0 || ((st.st_mode & 07777) != mode && chmod(path, mode) < 0) ||
        listen(fd, backlog) < 0) {
        r = -errno;
        unlink(path);
        return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int set_send_timeout(int fd, uint64_t ms)
{
    struct timeval tv = {.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    return neg_errno(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
}

int sock_connect(const char *path, int timeout_ms, int *ret_fd)
{
    struct sockaddr_un address;
    int r = fill_address(path, &address);
    if (r < 0)
        return r;

    int type = SOCK_STREAM | SOCK_CLOEXEC | (timeout_ms > 0 ? 0 : SOCK_NONBLOCK);
    _close_ int fd = neg_errno(socket(AF_UNIX, type, 0));
    if (fd < 0)
        return fd;

    /* A unix socket connects at once or waits for room in the backlog; a non-blocking one cannot be
     * polled for that, but the blocking wait is bounded by the send timeout (unix(7), socket(7)).
     */
    uint64_t deadline = clock_monotonic_ms() + (uint64_t)MAX_OF(timeout_ms, 0);
    for (;;) {
        if (timeout_ms > 0) {
            uint64_t now = clock_monotonic_ms();
            if (now >= deadline)
                return -ETIMEDOUT;
            r = set_send_timeout(fd, deadline - now);
            if (r < 0)
                return r;
        }
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            break;
        if (errno == EAGAIN && timeout_ms > 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }

    if (timeout_ms > 0) {
        r = set_send_timeout(fd, 0);
        if (r == 0)
            r = fs_set_nonblock(fd, true);
        if (r < 0)
            return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int sock_accept(int listen_fd, int *ret_fd)
{
    int fd;

    do
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

int sock_peer(int fd, struct sock_peer *ret)
{
    struct ucred cred;
    socklen_t size = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
        return -errno;
    *ret = (struct sock_peer){.pid = cred.pid, .uid = cred.uid, .gid = cred.gid};
    return 0;
}

int sock_pair(int ret_fds[2])
{
    return neg_errno(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fds));
}

union fd_message {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

/* Takes the first fd and closes the others, which the padding of the control message makes room
 * for. */
static void take_fds(struct msghdr *msg, int *fd)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (*fd < 0)
                *fd = got;
            else
                close(got);
        }
    }
}

ssize_t sock_recv_fd(int fd, void *bytes, size_t size, int *ret_fd)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = size};
    union fd_message control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;

    do
        n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    int got = -EBADF;
    take_fds(&msg, &got);
    *ret_fd = got;
    return n;
}

ssize_t sock_send_fd(int fd, const void *bytes, size_t n, int send_fd)
{
    struct iovec iov = {.iov_base = (void *)bytes, .iov_len = n};
    union fd_message control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t sent;

    if (n == 0)
        return -EINVAL; /* an fd needs a byte to travel with, unix(7) */
    if (send_fd >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &send_fd, sizeof(int));
    }
    do
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

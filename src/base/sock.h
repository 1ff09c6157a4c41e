/* SPDX-License-Identifier: Apache-2.0 */
/* Unix stream sockets: path-based only, born CLOEXEC and non-blocking unless said otherwise. */
#pragma once

#include <sys/socket.h>

#include "base/attr.h"

#define SOCK_PATH_MAX 107 /* bytes of sun_path without the NUL, unix(7) */

/* Binds and listens; the file has `mode` from the start (bound under umask). An existing socket
 * that nobody listens on is replaced; -EADDRINUSE when somebody does. -ENAMETOOLONG. */
int sock_listen(const char *path, mode_t mode, int backlog, int *ret_fd);
/* Connects, waiting at most timeout_ms (0: does not wait). */
int sock_connect(const char *path, int timeout_ms, int *ret_fd);
/* Accepts one; -EAGAIN when there is none. */
int sock_accept(int listen_fd, int *ret_fd);

struct sock_peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};
int sock_peer(int fd, struct sock_peer *ret); /* SO_PEERCRED, unix(7) */

int sock_pair(int ret_fds[2]); /* stream, CLOEXEC, blocking */
/* One byte string of at most `size` with at most one fd by SCM_RIGHTS (received CLOEXEC). *ret_fd
 * is -EBADF when none came. Returns bytes received, 0 at the end, negative errno. */
ssize_t sock_recv_fd(int fd, void *bytes, size_t size, int *ret_fd);
ssize_t sock_send_fd(int fd, const void *bytes, size_t n, int send_fd);

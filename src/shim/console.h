/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the OCI runtime hands over a terminal: it connects to a socket named with --console-socket
 * and sends the master's fd. The socket is made before the runtime is called and read after it has
 * ended: the message waits in the kernel meanwhile, so nothing has to listen.
 */
#pragma once

#include "base/err.h"

struct console_socket {
    int fd;     /* listening, -EBADF: none */
    char *path; /* of the socket */
    char *dir;  /* made for it, NULL when it lies in the bundle */
};
#define CONSOLE_SOCKET_INIT \
    {                       \
        .fd = -EBADF        \
    }

/* In the bundle if the name fits a socket address, else in a directory of its own below /tmp. */
int console_socket_init(struct console_socket *s, const char *bundle, const char *name,
                        struct err *e);
/* Closes and removes it. */
void console_socket_done(struct console_socket *s);
/* The master, non-blocking, after the runtime has ended. */
int console_socket_receive(struct console_socket *s, int *ret_master, struct err *e);
int console_resize(int master, uint32_t width, uint32_t height);

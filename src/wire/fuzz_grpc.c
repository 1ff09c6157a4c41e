/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a client, preface and all, into a connection of a server with one method of each
 * kind. Without a pool every callback runs on the loop, so that a run depends on nothing but its
 * input.
 */
#include <sys/socket.h>

#include "base/sock.h"
#include "wire/grpc_conn.h"
#include "wire/grpc_dispatch.h"
#include "wire/test_grpc_service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads what the server says, so that it is never blocked. */
static void drain(int fd)
{
    uint8_t bytes[65536];
    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
}

static void turn(struct event_loop *loop, int fd)
{
    for (int i = 0; i < 4; i++) {
        if (event_loop_turn(loop, 0) < 0)
            abort();
        drain(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_loop loop;
    struct grpc_server *server;
    struct grpc_server_options options = {.max_recv_message = 65536,
                                          .max_send_message = 65536 + 64};
    struct test_service service;
    struct err e = ERR_INIT;
    int fds[2];

    test_service_init(&service);
    service.slow_us = 0;
    if (event_loop_init(&loop) < 0 || sock_pair(fds) < 0 ||
        grpc_server_new(&loop, &options, service.services, ARRAY_SIZE(service.services), &server,
                        &e) < 0)
        abort();
    grpc_server_enter(server);
    if (grpc_conn_new(server, fds[0]) < 0)
        abort();
    grpc_server_leave(server);

    /* In two sizes of pieces: frames cut anywhere, and several at once. */
    for (size_t done = 0, step = 1 + size % 61; done < size;
         step = step < 1000 ? 4096 : 1 + size % 61) {
        size_t n = MIN_OF(step, size - done);
        if (send(fds[1], data + done, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            break;
        done += n;
        turn(&loop, fds[1]);
    }
    test_service_release(&service, NULL);
    turn(&loop, fds[1]);
    close(fds[1]);
    event_loop_turn(&loop, 0);
    grpc_server_free(server);
    if (service.concurrent_errors)
        abort();
    event_loop_done(&loop);
    test_service_done(&service);
    return 0;
}

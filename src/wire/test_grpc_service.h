/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services the tests and the fuzz target serve: each kind of method at each place, over messages of
 * the real interface.
 *
 *   Version/Version       unary, loop          version "1", revision: containerd-namespace
 *   Health/Check          unary, pool          SERVING; "fail": NotFound, "slow": after slow_us
 *   Content/Status        unary, parked        answered by test_service_release()
 *   Content/Read          server stream, pool  `size` bytes in messages of 64 KiB
 *   Content/Write         bidi, pool           the total after each message, and at the end
 *   Content/ListStatuses  bidi, loop           the same on the loop
 */
#pragma once

#include <stdatomic.h>

#include "wire/grpc_server.h"

struct test_service {
    atomic_int handled, cancelled, released, messages, writable;
    atomic_size_t most_queued;
    atomic_int concurrent_errors; /* two callbacks of one call at once */
    unsigned slow_us;             /* 50 ms; may be changed before the first call */
    pthread_mutex_t lock;
    struct grpc_call *parked[64];
    size_t n_parked;
    struct grpc_service services[3];
};

void test_service_init(struct test_service *t);
void test_service_done(struct test_service *t);
/* Answers the parked calls: OK, or with e. From any thread. Returns how many. */
size_t test_service_release(struct test_service *t, const struct err *e);

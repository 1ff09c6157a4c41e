/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread waits for what another one brings it. A rendezvous lives on the stack of the one who
 * waits, and is used once.
 */
#pragma once

#include "base/event.h"

struct rendezvous {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
};
#define RENDEZVOUS_INIT                                                                    \
    {                                                                                      \
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER, .done = false \
    }

/* The last thing the other thread does with it. */
void rendezvous_signal(struct rendezvous *r);
/* Returns once it is signalled, and ends its life. */
void rendezvous_wait(struct rendezvous *r);

/* [not the loop] Runs fn on the loop and waits for it. */
void loop_run(struct event_loop *loop, void (*fn)(void *arg), void *arg);

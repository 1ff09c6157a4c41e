/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of reusable chunks between one producer and up to two consumers, each in a thread of its
 * own. Every consumer sees every chunk, in order; a slot is filled again when all of them have left
 * it.
 */
#pragma once

#include <pthread.h>

#include "base/attr.h"

#define RING_SLOTS 12
#define RING_CHUNK_BYTES (256u * 1024)
#define RING_CONSUMERS_MAX 2

struct ring {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned n_consumers;
    uint64_t produced;                     /* chunks */
    uint64_t consumed[RING_CONSUMERS_MAX]; /* chunks left behind */
    bool holds[RING_CONSUMERS_MAX];        /* reads the chunk after those */
    bool ended;                            /* no chunk will follow */
    bool aborted;                          /* somebody gave up */
    size_t len[RING_SLOTS];
    uint8_t *slots; /* RING_SLOTS * RING_CHUNK_BYTES */
};

/* 0 or negative errno. */
int ring_init(struct ring *r, unsigned n_consumers);
void ring_done(struct ring *r);

/* The next slot to fill, RING_CHUNK_BYTES long; NULL when the ring was aborted. */
uint8_t *ring_slot(struct ring *r);
/* Hands the slot out with len bytes in it. */
void ring_publish(struct ring *r, size_t len);
void ring_end(struct ring *r);

/* The next chunk of a consumer, which holds it until its next call: 1 and a chunk, 0 at the end,
 * -ECANCELED when the ring was aborted. */
int ring_next(struct ring *r, unsigned consumer, const uint8_t **ret, size_t *ret_len);
/* Ends all waiting, now and later. */
void ring_abort(struct ring *r);

/* Starts a producer or consumer, on a small stack. 0 or negative errno. */
int ring_thread(pthread_t *ret, void *(*fn)(void *), void *arg);
/* What a consumer that hashes does: the SHA-256 of all chunks. 0, -ECANCELED when the ring was
 * aborted, -EIO when it could not be computed. */
int ring_hash(struct ring *r, unsigned consumer, uint8_t ret[32]);

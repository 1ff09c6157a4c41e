/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline of a job. A thread reads and decompresses the input into a ring; the caller's thread
 * takes the bytes out; and, if asked, another thread hashes them meanwhile.
 */
#pragma once

#include "base/err.h"
#include "worker/decode.h"
#include "worker/ring.h"

struct feed {
    struct ring ring;
    struct decoder *decoder;
    pthread_t decode_thread, hash_thread;
    bool decoding, hashing;
    uint64_t max_bytes;
    /* Written by the threads, read after feed_finish(). */
    uint64_t size_bytes;
    uint8_t hash[32];
    struct err decode_err, hash_err;
};

/* Starts the threads. The struct must not move. The fd is borrowed. */
int feed_start(struct feed *f, int fd, enum decode_format format, uint64_t max_bytes,
               bool with_hash, struct err *e);
/* A tar_source_fn (tar_reader.h). */
int feed_next(void *feed, const uint8_t **ret, size_t *ret_len, struct err *e);
/* Takes what is left to the very end, and ends the threads: size_bytes and hash are valid then. */
int feed_finish(struct feed *f, struct err *e);
/* Ends everything, at any point. */
void feed_done(struct feed *f);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pipeline of a job that writes: the caller's thread makes bytes, a thread compresses them into
 * an fd, and, if asked, another hashes them meanwhile. The counterpart of feed.h.
 */
#pragma once

#include "base/err.h"
#include "worker/encode.h"
#include "worker/ring.h"

struct drain {
    struct ring ring;
    struct encoder *encoder;
    pthread_t encode_thread, hash_thread;
    bool encoding, hashing;
    uint8_t *slot; /* being filled, NULL: none */
    size_t filled;
    uint64_t size_bytes;
    /* Written by the threads, read after drain_finish(). */
    uint8_t hash[32];
    struct err encode_err, hash_err;
};

/* Starts the threads. The struct must not move. The fd is borrowed. */
int drain_start(struct drain *d, int fd, enum decode_format format, bool with_hash, struct err *e);
/* A tar_sink_fn (tar_writer.h). */
int drain_write(void *drain, const void *bytes, size_t n, struct err *e);
/* All is in the fd when it returns; size_bytes and hash are those of what was written. */
int drain_finish(struct drain *d, struct err *e);
/* Ends everything, at any point. */
void drain_done(struct drain *d);

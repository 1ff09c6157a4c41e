/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/feed.h"

#define CALLER 0
#define HASHER 1

static void *decode_main(void *arg)
{
    struct feed *f = arg;

    for (;;) {
        uint8_t *slot = ring_slot(&f->ring);
        if (!slot)
            return NULL;
        ssize_t n = decoder_read(f->decoder, slot, RING_CHUNK_BYTES, &f->decode_err);
        if (n >= 0 && f->max_bytes - f->size_bytes < (uint64_t)n) {
            err_set(&f->decode_err, ERR_RESOURCE_EXHAUSTED,
                    "the archive has more than %llu bytes uncompressed",
                    (unsigned long long)f->max_bytes);
            n = -1;
        }
        if (n < 0)
            ring_abort(&f->ring);
        if (n == 0)
            ring_end(&f->ring);
        if (n <= 0)
            return NULL;
        f->size_bytes += (uint64_t)n;
        ring_publish(&f->ring, (size_t)n);
    }
}

static void *hash_main(void *arg)
{
    struct feed *f = arg;

    if (ring_hash(&f->ring, HASHER, f->hash) == -EIO)
        err_set(&f->hash_err, ERR_INTERNAL, "hash the uncompressed layer");
    return NULL;
}

int feed_start(struct feed *f, int fd, enum decode_format format, uint64_t max_bytes,
               bool with_hash, struct err *e)
{
    *f = (struct feed){.max_bytes = max_bytes};

    int r = decoder_new(fd, format, &f->decoder, e);
    if (r < 0)
        return r;
    if (ring_init(&f->ring, with_hash ? 2 : 1) < 0) {
        feed_done(f);
        return err_oom(e);
    }
    r = ring_thread(&f->decode_thread, decode_main, f);
    f->decoding = r == 0;
    if (r == 0 && with_hash) {
        r = ring_thread(&f->hash_thread, hash_main, f);
        f->hashing = r == 0;
    }
    if (r < 0) {
        feed_done(f);
        return err_errno(e, r, "start a thread");
    }
    return 0;
}

static void join(struct feed *f)
{
    if (f->decoding)
        pthread_join(f->decode_thread, NULL);
    if (f->hashing)
        pthread_join(f->hash_thread, NULL);
    f->decoding = f->hashing = false;
}

int feed_next(void *feed, const uint8_t **ret, size_t *ret_len, struct err *e)
{
    struct feed *f = feed;

    int r = ring_next(&f->ring, CALLER, ret, ret_len);
    if (r != -ECANCELED)
        return r;
    join(f);
    if (e)
        *e = f->decode_err;
    return ERR_RETURN;
}

int feed_finish(struct feed *f, struct err *e)
{
    const uint8_t *bytes;
    size_t n;
    int r;

    while ((r = feed_next(f, &bytes, &n, e)) > 0)
        continue;
    if (r < 0)
        return r;
    join(f);
    if (f->hash_err.code != ERR_OK) {
        if (e)
            *e = f->hash_err;
        return ERR_RETURN;
    }
    return 0;
}

void feed_done(struct feed *f)
{
    if (f->ring.slots)
        ring_abort(&f->ring);
    join(f);
    ring_done(&f->ring);
    f->decoder = decoder_free(f->decoder);
}

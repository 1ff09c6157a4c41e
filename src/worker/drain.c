/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/drain.h"

#define ENCODER 0
#define HASHER 1

static void *encode_main(void *arg)
{
    struct drain *d = arg;
    const uint8_t *bytes;
    size_t n;
    int r = 0, written = 0;

    while (written >= 0 && (r = ring_next(&d->ring, ENCODER, &bytes, &n)) > 0)
        written = encoder_write(d->encoder, bytes, n, &d->encode_err);
    if (written >= 0 && r == 0)
        written = encoder_finish(d->encoder, &d->encode_err);
    if (written < 0)
        ring_abort(&d->ring);
    return NULL;
}

static void *hash_main(void *arg)
{
    struct drain *d = arg;

    if (ring_hash(&d->ring, HASHER, d->hash) == -EIO)
        err_set(&d->hash_err, ERR_INTERNAL, "hash the uncompressed layer");
    return NULL;
}

int drain_start(struct drain *d, int fd, enum decode_format format, bool with_hash, struct err *e)
{
    *d = (struct drain){0};

    int r = encoder_new(fd, format, &d->encoder, e);
    if (r < 0)
        return r;
    if (ring_init(&d->ring, with_hash ? 2 : 1) < 0) {
        drain_done(d);
        return err_oom(e);
    }
    r = ring_thread(&d->encode_thread, encode_main, d);
    d->encoding = r == 0;
    if (r == 0 && with_hash) {
        r = ring_thread(&d->hash_thread, hash_main, d);
        d->hashing = r == 0;
    }
    if (r < 0) {
        drain_done(d);
        return err_errno(e, r, "start a thread");
    }
    return 0;
}

static void join(struct drain *d)
{
    if (d->encoding)
        pthread_join(d->encode_thread, NULL);
    if (d->hashing)
        pthread_join(d->hash_thread, NULL);
    d->encoding = d->hashing = false;
}

static int failed(struct drain *d, struct err *e)
{
    join(d);
    if (e)
        *e = d->encode_err.code != ERR_OK ? d->encode_err : d->hash_err;
    return ERR_RETURN;
}

int drain_write(void *drain, const void *bytes, size_t n, struct err *e)
{
    struct drain *d = drain;
    const uint8_t *at = bytes;

    d->size_bytes += n;
    while (n > 0) {
        if (!d->slot && !(d->slot = ring_slot(&d->ring)))
            return failed(d, e);
        size_t part = MIN_OF(n, RING_CHUNK_BYTES - d->filled);
        memcpy(d->slot + d->filled, at, part);
        d->filled += part;
        at += part;
        n -= part;
        /* Only ever whole chunks: the encoder's output must not depend on who was faster. */
        if (d->filled == RING_CHUNK_BYTES) {
            ring_publish(&d->ring, d->filled);
            d->slot = NULL;
            d->filled = 0;
        }
    }
    return 0;
}

int drain_finish(struct drain *d, struct err *e)
{
    if (d->slot)
        ring_publish(&d->ring, d->filled);
    d->slot = NULL;
    ring_end(&d->ring);
    join(d);
    if (d->encode_err.code != ERR_OK || d->hash_err.code != ERR_OK)
        return failed(d, e);
    return 0;
}

void drain_done(struct drain *d)
{
    if (d->ring.slots)
        ring_abort(&d->ring);
    join(d);
    ring_done(&d->ring);
    d->encoder = encoder_free(d->encoder);
}

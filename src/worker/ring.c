/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ring.h"

#include <openssl/evp.h>

#define STACK_BYTES (256 * 1024)

int ring_init(struct ring *r, unsigned n_consumers)
{
    *r = (struct ring){.n_consumers = n_consumers};
    r->slots = malloc((size_t)RING_SLOTS * RING_CHUNK_BYTES);
    if (!r->slots)
        return -ENOMEM;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    return 0;
}

void ring_done(struct ring *r)
{
    if (!r->slots)
        return;
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->slots);
    r->slots = NULL;
}

static bool is_full(const struct ring *r)
{
    for (unsigned i = 0; i < r->n_consumers; i++)
        if (r->produced - r->consumed[i] >= RING_SLOTS)
            return true;
    return false;
}

uint8_t *ring_slot(struct ring *r)
{
    pthread_mutex_lock(&r->lock);
    while (is_full(r) && !r->aborted)
        pthread_cond_wait(&r->changed, &r->lock);
    uint8_t *slot = r->aborted ? NULL : r->slots + r->produced % RING_SLOTS * RING_CHUNK_BYTES;
    pthread_mutex_unlock(&r->lock);
    return slot;
}

void ring_publish(struct ring *r, size_t len)
{
    pthread_mutex_lock(&r->lock);
    r->len[r->produced % RING_SLOTS] = len;
    r->produced++;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void ring_end(struct ring *r)
{
    pthread_mutex_lock(&r->lock);
    r->ended = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

int ring_next(struct ring *r, unsigned consumer, const uint8_t **ret, size_t *ret_len)
{
    int result;

    pthread_mutex_lock(&r->lock);
    if (r->holds[consumer]) {
        r->holds[consumer] = false;
        r->consumed[consumer]++;
        pthread_cond_broadcast(&r->changed);
    }
    while (r->consumed[consumer] == r->produced && !r->ended && !r->aborted)
        pthread_cond_wait(&r->changed, &r->lock);
    if (r->aborted) {
        result = -ECANCELED;
    } else if (r->consumed[consumer] == r->produced) {
        result = 0;
    } else {
        size_t i = r->consumed[consumer] % RING_SLOTS;
        *ret = r->slots + i * RING_CHUNK_BYTES;
        *ret_len = r->len[i];
        r->holds[consumer] = true;
        result = 1;
    }
    pthread_mutex_unlock(&r->lock);
    return result;
}

void ring_abort(struct ring *r)
{
    pthread_mutex_lock(&r->lock);
    r->aborted = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

int ring_thread(pthread_t *ret, void *(*fn)(void *), void *arg)
{
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int r = pthread_create(ret, &attr, fn, arg);
    pthread_attr_destroy(&attr);
    return -r;
}

int ring_hash(struct ring *r, unsigned consumer, uint8_t ret[32])
{
    const uint8_t *bytes;
    size_t n;
    int result;

    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    while ((result = ring_next(r, consumer, &bytes, &n)) > 0)
        ok = ok && EVP_DigestUpdate(ctx, bytes, n) == 1;
    if (result == 0)
        ok = ok && EVP_DigestFinal_ex(ctx, ret, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? result : -EIO;
}

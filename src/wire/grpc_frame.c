/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_frame.h"

/* The first allocation of a message whose bytes have not all come. */
#define FIRST_BYTES 4096

void grpc_decoder_init(struct grpc_decoder *d, size_t max)
{
    *d = (struct grpc_decoder){.max = max};
}

void grpc_decoder_done(struct grpc_decoder *d)
{
    free(d->payload);
    *d = (struct grpc_decoder){.max = d->max};
}

/* Makes room for n more bytes of the payload: doubling, and never beyond the declared length. */
static int decoder_grow(struct grpc_decoder *d, size_t n)
{
    size_t need = d->received + n;
    if (need <= d->allocated)
        return 0;

    size_t size = MAX_OF(MAX_OF(d->allocated * 2, need), (size_t)FIRST_BYTES);
    size = MIN_OF(size, (size_t)grpc_decoder_length(d));
    uint8_t *payload = realloc(d->payload, size);
    if (!payload)
        return -ENOMEM;
    d->payload = payload;
    d->allocated = size;
    return 0;
}

/* Takes what is missing of the prefix and checks it when it is whole. */
static int decoder_feed_prefix(struct grpc_decoder *d, const uint8_t *bytes, size_t n, size_t *used)
{
    size_t take = MIN_OF(n, GRPC_PREFIX_SIZE - d->prefix_len);
    memcpy(d->prefix + d->prefix_len, bytes, take);
    d->prefix_len += take;
    *used += take;
    if (d->prefix_len < GRPC_PREFIX_SIZE)
        return 0;

    if (grpc_decoder_flag(d) != 0)
        return -ENOTSUP;
    if (grpc_decoder_length(d) > d->max)
        return -EMSGSIZE;
    return 0;
}

int grpc_decoder_feed(struct grpc_decoder *d, const uint8_t *bytes, size_t n, size_t *ret_used)
{
    size_t used = 0;

    if (d->prefix_len < GRPC_PREFIX_SIZE && n > 0) {
        int r = decoder_feed_prefix(d, bytes, n, &used);
        if (r < 0)
            return r;
    }
    *ret_used = used;
    if (d->prefix_len < GRPC_PREFIX_SIZE)
        return 0;

    size_t take = MIN_OF(n - used, grpc_decoder_length(d) - d->received);
    if (take > 0) {
        int r = decoder_grow(d, take);
        if (r < 0)
            return r;
        memcpy(d->payload + d->received, bytes + used, take);
        d->received += take;
    }
    *ret_used = used + take;
    return d->received == grpc_decoder_length(d);
}

void grpc_decoder_take(struct grpc_decoder *d, uint8_t **ret, size_t *ret_n)
{
    *ret = TAKE(d->payload);
    *ret_n = d->received;
    d->received = d->allocated = d->prefix_len = 0;
}

void grpc_prefix_write(uint8_t out[GRPC_PREFIX_SIZE], uint32_t n)
{
    out[0] = 0;
    out[1] = (uint8_t)(n >> 24);
    out[2] = (uint8_t)(n >> 16);
    out[3] = (uint8_t)(n >> 8);
    out[4] = (uint8_t)n;
}

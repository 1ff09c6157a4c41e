/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC's length-prefixed messages, without sockets: bytes of DATA frames in, messages out.
 *
 *     offset 0  u8              1 when the payload is compressed (we offer no compression)
 *            1  u32 big endian  payload length
 *            5  payload
 *
 * A length over the limit is refused when the prefix is read, before anything is allocated. Memory
 * for a message grows with the bytes that have come, so that a declared length alone costs nothing.
 */
#pragma once

#include "base/attr.h"

#define GRPC_PREFIX_SIZE 5

struct grpc_decoder {
    size_t max; /* bytes of one payload */
    uint8_t prefix[GRPC_PREFIX_SIZE];
    size_t prefix_len;
    uint8_t *payload;
    size_t received;
    size_t allocated;
};

void grpc_decoder_init(struct grpc_decoder *d, size_t max);
void grpc_decoder_done(struct grpc_decoder *d);

/*
 * Takes bytes up to the end of the current message; *ret_used says how many.
 *   1           a message is complete: fetch it with grpc_decoder_take() before feeding on
 *   0           all bytes were taken, more are needed
 *   -EMSGSIZE   the declared length (grpc_decoder_length()) is over the limit
 *   -ENOTSUP    the compressed flag (grpc_decoder_flag()) is not 0
 *   -ENOMEM
 * After an error the decoder is of no further use.
 */
int grpc_decoder_feed(struct grpc_decoder *d, const uint8_t *bytes, size_t n, size_t *ret_used);
/* Gives the complete message away: malloc'ed, NULL when it is empty. The decoder is ready for the
 * next. */
void grpc_decoder_take(struct grpc_decoder *d, uint8_t **ret, size_t *ret_n);

/* True in the middle of a prefix or payload: the stream may not end here. */
static inline bool grpc_decoder_is_partial(const struct grpc_decoder *d)
{
    return d->prefix_len > 0;
}
/* Of the message whose prefix was read last. */
static inline uint8_t grpc_decoder_flag(const struct grpc_decoder *d)
{
    return d->prefix[0];
}
static inline uint32_t grpc_decoder_length(const struct grpc_decoder *d)
{
    return (uint32_t)d->prefix[1] << 24 | (uint32_t)d->prefix[2] << 16 |
           (uint32_t)d->prefix[3] << 8 | d->prefix[4];
}

/* Writes the prefix of an uncompressed message of n bytes. */
void grpc_prefix_write(uint8_t out[GRPC_PREFIX_SIZE], uint32_t n);

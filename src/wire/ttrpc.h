/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ttrpc frames, without sockets: bytes in, frames out, and back.
 *
 *     offset 0  u32 big endian  payload length
 *            4  u32 big endian  stream id (odd, chosen by the dialling side, increasing)
 *            8  u8              type
 *            9  u8              flags
 *
 * A payload over TTRPC_PAYLOAD_MAX is skipped as it arrives and reported as a frame with `oversize`
 * set and no payload, so that the receiver can answer ResourceExhausted on its stream and go on.
 */
#pragma once

#include "base/buf.h"

#define TTRPC_HEADER_SIZE 10
#define TTRPC_PAYLOAD_MAX (4u << 20)

enum ttrpc_type { TTRPC_REQUEST = 1, TTRPC_RESPONSE = 2, TTRPC_DATA = 3 };
enum ttrpc_flags { TTRPC_REMOTE_CLOSED = 1, TTRPC_REMOTE_OPEN = 2, TTRPC_NO_DATA = 4 };

struct ttrpc_frame {
    uint32_t stream_id;
    uint8_t type;  /* what came, known or not */
    uint8_t flags; /* likewise */
    bool oversize;
    uint32_t length;        /* as declared */
    const uint8_t *payload; /* borrowed until the next call on the decoder; NULL when oversize */
};

struct ttrpc_decoder {
    struct buf in;  /* grows with what arrives, never beyond one frame */
    size_t consume; /* bytes of the frame handed out last */
    uint64_t skip;  /* bytes of an oversize payload still to come */
};

void ttrpc_decoder_init(struct ttrpc_decoder *d);
void ttrpc_decoder_done(struct ttrpc_decoder *d);
/* Where to read(2) into: at least one byte of room, at most what completes the current frame plus a
 * little; 0 or -ENOMEM. ttrpc_decoder_fed() says how much came. */
int ttrpc_decoder_space(struct ttrpc_decoder *d, uint8_t **ret, size_t *ret_size);
void ttrpc_decoder_fed(struct ttrpc_decoder *d, size_t n);
/* 1: *ret is the next frame; 0: more bytes are needed. Never fails: any bytes are some frames. */
int ttrpc_decoder_next(struct ttrpc_decoder *d, struct ttrpc_frame *ret);

/* Appends one frame. -ENOBUFS, -ENOMEM as of buf_append(); -EMSGSIZE over TTRPC_PAYLOAD_MAX. */
int ttrpc_encode(struct buf *out, uint32_t stream_id, uint8_t type, const void *payload, size_t n);
/* The same in place: writes the header and gives the n bytes behind it, which the caller fills
 * before buf_commit(out, TTRPC_HEADER_SIZE + n). */
int ttrpc_encode_header(struct buf *out, uint32_t stream_id, uint8_t type, size_t n, uint8_t **ret);

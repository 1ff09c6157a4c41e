/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/ttrpc.h"

/* The first read of a frame; later ones double, so that a declared length alone costs nothing. */
#define READ_BYTES_MIN 4096
/* What an idle decoder may keep. */
#define IDLE_BYTES_MAX 4096

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

void ttrpc_decoder_init(struct ttrpc_decoder *d)
{
    *d = (struct ttrpc_decoder){
        .in = BUF_INIT(TTRPC_HEADER_SIZE + TTRPC_PAYLOAD_MAX + READ_BYTES_MIN)};
}

void ttrpc_decoder_done(struct ttrpc_decoder *d)
{
    buf_done(&d->in);
}

/* Drops the frame handed out last and what comes of an oversize payload. */
static void drop_consumed(struct ttrpc_decoder *d)
{
    buf_consume(&d->in, d->consume);
    d->consume = 0;
    if (d->skip > 0) {
        size_t n = (size_t)MIN_OF(d->skip, (uint64_t)d->in.len);
        buf_consume(&d->in, n);
        d->skip -= n;
    }
    if (d->in.len == 0 && d->in.allocated > IDLE_BYTES_MAX)
        buf_trim(&d->in);
}

int ttrpc_decoder_space(struct ttrpc_decoder *d, uint8_t **ret, size_t *ret_size)
{
    drop_consumed(d);

    size_t want = READ_BYTES_MIN;
    if (d->skip == 0 && d->in.len >= TTRPC_HEADER_SIZE) {
        uint32_t length = get_u32(buf_head(&d->in));
        if (length <= TTRPC_PAYLOAD_MAX && TTRPC_HEADER_SIZE + length > d->in.len)
            want = MIN_OF(TTRPC_HEADER_SIZE + length - d->in.len,
                          MAX_OF(d->in.len, (size_t)READ_BYTES_MIN));
    }
    want = MIN_OF(want, d->in.max - d->in.len);
    if (want == 0)
        return -ENOBUFS; /* complete frames were not taken */
    int r = buf_reserve(&d->in, want, ret);
    if (r < 0)
        return r;
    *ret_size = want;
    return 0;
}

void ttrpc_decoder_fed(struct ttrpc_decoder *d, size_t n)
{
    buf_commit(&d->in, n);
}

int ttrpc_decoder_next(struct ttrpc_decoder *d, struct ttrpc_frame *ret)
{
    drop_consumed(d);
    if (d->skip > 0 || d->in.len < TTRPC_HEADER_SIZE)
        return 0;

    const uint8_t *head = buf_head(&d->in);
    uint32_t length = get_u32(head);
    bool oversize = length > TTRPC_PAYLOAD_MAX;
    if (!oversize && d->in.len < TTRPC_HEADER_SIZE + length)
        return 0;

    *ret = (struct ttrpc_frame){
        .stream_id = get_u32(head + 4),
        .type = head[8],
        .flags = head[9],
        .oversize = oversize,
        .length = length,
        .payload = oversize ? NULL : head + TTRPC_HEADER_SIZE,
    };
    d->consume = TTRPC_HEADER_SIZE;
    if (oversize)
        d->skip = length;
    else
        d->consume += length;
    return 1;
}

int ttrpc_encode_header(struct buf *out, uint32_t stream_id, uint8_t type, size_t n, uint8_t **ret)
{
    uint8_t *p;

    if (n > TTRPC_PAYLOAD_MAX)
        return -EMSGSIZE;
    int r = buf_reserve(out, TTRPC_HEADER_SIZE + n, &p);
    if (r < 0)
        return r;
    put_u32(p, (uint32_t)n);
    put_u32(p + 4, stream_id);
    p[8] = type;
    p[9] = 0;
    *ret = p + TTRPC_HEADER_SIZE;
    return 0;
}

int ttrpc_encode(struct buf *out, uint32_t stream_id, uint8_t type, const void *payload, size_t n)
{
    uint8_t *p;

    int r = ttrpc_encode_header(out, stream_id, type, n, &p);
    if (r < 0)
        return r;
    if (n > 0)
        memcpy(p, payload, n);
    buf_commit(out, TTRPC_HEADER_SIZE + n);
    return 0;
}

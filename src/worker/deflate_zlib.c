/* SPDX-License-Identifier: Apache-2.0 */
#include <zlib.h>

#include "worker/deflate.h"

#define GZIP_WRAPPER (16 + MAX_WBITS)
#define MEMORY_LEVEL 8

struct deflater {
    z_stream stream;
};

struct deflater *deflater_new(void)
{
    struct deflater *x = calloc(1, sizeof(*x));

    if (x && deflateInit2(&x->stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WRAPPER, MEMORY_LEVEL,
                          Z_DEFAULT_STRATEGY) != Z_OK) {
        free(x);
        x = NULL;
    }
    return x;
}

struct deflater *deflater_free(struct deflater *x)
{
    if (x)
        deflateEnd(&x->stream);
    free(x);
    return NULL;
}

bool deflater_run(struct deflater *x, const uint8_t **in, size_t *in_len, uint8_t **out,
                  size_t *out_len, bool end)
{
    z_stream *s = &x->stream;

    s->next_in = (uint8_t *)*in;
    s->avail_in = (uInt)*in_len;
    s->next_out = *out;
    s->avail_out = (uInt)*out_len;
    /* Z_BUF_ERROR says that there was nothing to do. */
    int r = deflate(s, end ? Z_FINISH : Z_NO_FLUSH);
    *in_len -= (size_t)(s->next_in - *in);
    *in = s->next_in;
    *out_len -= (size_t)(s->next_out - *out);
    *out = s->next_out;
    return end ? r == Z_STREAM_END : *in_len == 0 && *out_len > 0;
}

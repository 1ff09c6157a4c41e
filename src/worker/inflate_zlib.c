/* SPDX-License-Identifier: Apache-2.0 */
#include <zlib.h>

#include "worker/inflate.h"

#define GZIP_WRAPPER (16 + MAX_WBITS)

struct inflater {
    z_stream stream;
    bool in_member;
};

struct inflater *inflater_new(void)
{
    struct inflater *x = calloc(1, sizeof(*x));
    if (x && inflateInit2(&x->stream, GZIP_WRAPPER) != Z_OK) {
        free(x);
        x = NULL;
    }
    return x;
}

struct inflater *inflater_free(struct inflater *x)
{
    if (x)
        inflateEnd(&x->stream);
    free(x);
    return NULL;
}

int inflater_run(struct inflater *x, const uint8_t **in, size_t *in_len, uint8_t **out,
                 size_t *out_len, const char **ret_why)
{
    z_stream *s = &x->stream;

    if (!x->in_member) {
        inflateReset(s);
        x->in_member = true;
    }
    s->next_in = (uint8_t *)*in;
    s->avail_in = (uInt)MIN_OF(*in_len, (size_t)1 << 30);
    s->next_out = *out;
    s->avail_out = (uInt)MIN_OF(*out_len, (size_t)1 << 30);
    int r = inflate(s, Z_NO_FLUSH);
    *in_len -= (size_t)(s->next_in - *in);
    *in = s->next_in;
    *out_len -= (size_t)(s->next_out - *out);
    *out = s->next_out;
    if (r == Z_STREAM_END) {
        x->in_member = false;
        return 1;
    }
    if (r == Z_OK || r == Z_BUF_ERROR)
        return 0;
    *ret_why = s->msg ? s->msg : "corrupt deflate data";
    return -EBADMSG;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <isa-l/igzip_lib.h>

#include "worker/deflate.h"

/* Of 0 to 3: the next one takes more than twice the time for the last hundredth. */
#define LEVEL 2
#define LEVEL_BYTES ISAL_DEF_LVL2_DEFAULT

struct deflater {
    struct isal_zstream stream;
    uint8_t level_bytes[LEVEL_BYTES];
};

struct deflater *deflater_new(void)
{
    struct deflater *x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    isal_deflate_init(&x->stream);
    x->stream.level = LEVEL;
    x->stream.level_buf = x->level_bytes;
    x->stream.level_buf_size = LEVEL_BYTES;
    x->stream.gzip_flag = IGZIP_GZIP;
    return x;
}

struct deflater *deflater_free(struct deflater *x)
{
    free(x);
    return NULL;
}

bool deflater_run(struct deflater *x, const uint8_t **in, size_t *in_len, uint8_t **out,
                  size_t *out_len, bool end)
{
    struct isal_zstream *s = &x->stream;

    s->next_in = (uint8_t *)*in;
    s->avail_in = (uint32_t)*in_len;
    s->next_out = *out;
    s->avail_out = (uint32_t)*out_len;
    s->end_of_stream = end;
    /* Fails for wrong arguments only. */
    isal_deflate(s);
    *in_len -= (size_t)(s->next_in - *in);
    *in = s->next_in;
    *out_len -= (size_t)(s->next_out - *out);
    *out = s->next_out;
    return end ? s->internal_state.state == ZSTATE_END : *in_len == 0 && *out_len > 0;
}

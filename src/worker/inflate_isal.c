/* SPDX-License-Identifier: Apache-2.0 */
#include <isa-l/igzip_lib.h>

#include "worker/inflate.h"

struct inflater {
    struct inflate_state state;
    bool in_member;
};

struct inflater *inflater_new(void)
{
    struct inflater *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    isal_inflate_init(&x->state);
    x->state.crc_flag = ISAL_GZIP;
    return x;
}

struct inflater *inflater_free(struct inflater *x)
{
    free(x);
    return NULL;
}

static const char *explain(int r)
{
    switch (r) {
    case ISAL_INVALID_WRAPPER:
        return "invalid gzip header";
    case ISAL_UNSUPPORTED_METHOD:
        return "unknown compression method";
    case ISAL_INCORRECT_CHECKSUM:
        return "invalid checksum";
    default:
        return "corrupt deflate data";
    }
}

int inflater_run(struct inflater *x, const uint8_t **in, size_t *in_len, uint8_t **out,
                 size_t *out_len, const char **ret_why)
{
    struct inflate_state *s = &x->state;

    if (!x->in_member) {
        isal_inflate_reset(s);
        x->in_member = true;
    }
    s->next_in = (uint8_t *)*in;
    s->avail_in = (uint32_t)MIN_OF(*in_len, (size_t)1 << 30);
    s->next_out = *out;
    s->avail_out = (uint32_t)MIN_OF(*out_len, (size_t)1 << 30);
    int r = isal_inflate(s);
    *in_len -= (size_t)(s->next_in - *in);
    *in = s->next_in;
    *out_len -= (size_t)(s->next_out - *out);
    *out = s->next_out;
    if (r < 0) {
        *ret_why = explain(r);
        return -EBADMSG;
    }
    if (s->block_state != ISAL_BLOCK_FINISH)
        return 0;
    x->in_member = false;
    return 1;
}

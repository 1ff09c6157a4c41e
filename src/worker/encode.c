/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/encode.h"

#include <zstd.h>

#include "base/fs.h"
#include "worker/deflate.h"

#define OUT_BYTES (256 * 1024)
#define ZSTD_LEVEL 3

struct encoder {
    int fd;
    enum decode_format format;
    struct deflater *deflater;
    ZSTD_CCtx *zstd;
    uint8_t *out;
};

struct encoder *encoder_free(struct encoder *x)
{
    if (!x)
        return NULL;
    deflater_free(x->deflater);
    ZSTD_freeCCtx(x->zstd);
    free(x->out);
    free(x);
    return NULL;
}

static bool init(struct encoder *x)
{
    x->out = malloc(OUT_BYTES);
    if (!x->out)
        return false;
    if (x->format == DECODE_GZIP)
        return (x->deflater = deflater_new());
    if (x->format != DECODE_ZSTD)
        return true;
    x->zstd = ZSTD_createCCtx();
    return x->zstd &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(x->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(x->zstd, ZSTD_c_checksumFlag, 1));
}

int encoder_new(int fd, enum decode_format format, struct encoder **ret, struct err *e)
{
    struct encoder *x = calloc(1, sizeof(*x));

    if (!x)
        return err_oom(e);
    x->fd = fd;
    x->format = format;
    if (!init(x)) {
        encoder_free(x);
        return err_oom(e);
    }
    *ret = x;
    return 0;
}

static int put(struct encoder *x, const void *bytes, size_t n, struct err *e)
{
    int r = fs_write_all(x->fd, bytes, n);
    return r < 0 ? err_errno(e, r, "hand on the layer") : 0;
}

static int run_gzip(struct encoder *x, const uint8_t *bytes, size_t n, bool end, struct err *e)
{
    bool done = false;
    int r = 0;

    while (r >= 0 && !done) {
        uint8_t *out = x->out;
        size_t room = OUT_BYTES;
        done = deflater_run(x->deflater, &bytes, &n, &out, &room, end);
        r = put(x, x->out, OUT_BYTES - room, e);
    }
    return r;
}

static int run_zstd(struct encoder *x, const uint8_t *bytes, size_t n, bool end, struct err *e)
{
    ZSTD_inBuffer in = {.src = bytes, .size = n};
    size_t left;
    int r = 0;

    do {
        ZSTD_outBuffer out = {.dst = x->out, .size = OUT_BYTES};
        left = ZSTD_compressStream2(x->zstd, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return err_set(e, ERR_INTERNAL, "compress the layer: %s", ZSTD_getErrorName(left));
        r = put(x, x->out, out.pos, e);
    } while (r >= 0 && (end ? left > 0 : in.pos < in.size));
    return r;
}

static int run(struct encoder *x, const void *bytes, size_t n, bool end, struct err *e)
{
    switch (x->format) {
    case DECODE_GZIP:
        return run_gzip(x, bytes, n, end, e);
    case DECODE_ZSTD:
        return run_zstd(x, bytes, n, end, e);
    default:
        return put(x, bytes, n, e);
    }
}

int encoder_write(struct encoder *x, const void *bytes, size_t n, struct err *e)
{
    return run(x, bytes, n, false, e);
}

int encoder_finish(struct encoder *x, struct err *e)
{
    return run(x, "", 0, true, e);
}

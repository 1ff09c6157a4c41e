/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/decode.h"

#include <openssl/evp.h>
#include <zstd.h>

#include "base/fs.h"
#include "base/log.h"
#include "worker/inflate.h"

#define INPUT_BYTES (256 * 1024)
#define ZSTD_WINDOW_LOG_MAX 27 /* 128 MiB */

struct decoder {
    int fd;
    enum decode_format format;
    EVP_MD_CTX *hash;
    uint64_t blob_bytes;
    uint8_t *input;
    const uint8_t *at; /* in input */
    size_t left;
    bool input_ended;
    bool ended;
    bool between; /* gzip, zstd: no member or frame is open */
    bool any;     /* gzip, zstd: one was complete */
    struct inflater *inflater;
    ZSTD_DCtx *zstd;
};

struct decoder *decoder_free(struct decoder *d)
{
    if (!d)
        return NULL;
    EVP_MD_CTX_free(d->hash);
    ZSTD_freeDCtx(d->zstd);
    inflater_free(d->inflater);
    free(d->input);
    free(d);
    return NULL;
}

static void decoder_freep(struct decoder **d)
{
    *d = decoder_free(*d);
}

/* Moves what is left to the front and reads behind it. */
static int fill(struct decoder *d, struct err *e)
{
    if (d->left > 0 && d->at != d->input)
        memmove(d->input, d->at, d->left);
    d->at = d->input;
    while (!d->input_ended && d->left < INPUT_BYTES) {
        ssize_t n = neg_errno(read(d->fd, d->input + d->left, INPUT_BYTES - d->left));
        if (n == -EINTR)
            continue;
        if (n < 0)
            return err_errno(e, (int)n, "read layer");
        if (n == 0) {
            d->input_ended = true;
            break;
        }
        if (EVP_DigestUpdate(d->hash, d->input + d->left, (size_t)n) != 1)
            return err_set(e, ERR_INTERNAL, "hash layer");
        d->blob_bytes += (uint64_t)n;
        d->left += (size_t)n;
    }
    return 0;
}

static bool starts_gzip(const struct decoder *d)
{
    return d->left >= 2 && d->at[0] == 0x1f && d->at[1] == 0x8b;
}

static bool starts_zstd(const struct decoder *d)
{
    if (d->left < 4)
        return false;
    uint32_t magic = (uint32_t)d->at[0] | (uint32_t)d->at[1] << 8 | (uint32_t)d->at[2] << 16 |
                     (uint32_t)d->at[3] << 24;
    return magic == ZSTD_MAGICNUMBER ||
           (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

static int open_format(struct decoder *d, struct err *e)
{
    if (d->format == DECODE_AUTO)
        d->format = starts_gzip(d) ? DECODE_GZIP : starts_zstd(d) ? DECODE_ZSTD : DECODE_TAR;
    d->between = true;
    if (d->format == DECODE_GZIP) {
        d->inflater = inflater_new();
        if (!d->inflater)
            return err_oom(e);
    } else if (d->format == DECODE_ZSTD) {
        d->zstd = ZSTD_createDCtx();
        if (!d->zstd ||
            ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX)))
            return err_oom(e);
    }
    return 0;
}

int decoder_new(int fd, enum decode_format format, struct decoder **ret, struct err *e)
{
    _cleanup_(decoder_freep) struct decoder *d = calloc(1, sizeof(*d));
    if (!d)
        return err_oom(e);
    d->fd = fd;
    d->format = format;
    d->hash = EVP_MD_CTX_new();
    d->input = malloc(INPUT_BYTES);
    if (!d->hash || !d->input)
        return err_oom(e);
    d->at = d->input;
    if (EVP_DigestInit_ex(d->hash, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_INTERNAL, "start hashing: SHA-256 is not available");
    int r = fill(d, e);
    if (r < 0 || (r = open_format(d, e)) < 0)
        return r;
    *ret = TAKE(d);
    return 0;
}

/* Nothing more comes out; what is still in the fd belongs to the hash of the blob. */
static int drain(struct decoder *d, struct err *e)
{
    d->ended = true;
    while (!d->input_ended) {
        d->left = 0;
        int r = fill(d, e);
        if (r < 0)
            return r;
    }
    d->left = 0;
    return 0;
}

static int broken(const char *format, const char *why, struct err *e)
{
    return err_set(e, ERR_INVALID_ARGUMENT, "the %s stream cannot be decompressed: %s", format,
                   why);
}

/* Each step makes progress or refills: 0 go on, 1 the end, negative failed. */
static int step_gzip(struct decoder *d, uint8_t **out, size_t *room, struct err *e)
{
    const char *why = NULL;

    if (d->between) {
        if (d->left < 2 && !d->input_ended)
            return fill(d, e);
        if (!starts_gzip(d) && d->any) {
            if (d->left > 0)
                log_warn("gzip: trailing garbage ignored");
            return drain(d, e) < 0 ? ERR_RETURN : 1;
        }
        if (!starts_gzip(d))
            return broken("gzip", d->left ? "invalid gzip header" : "it is empty", e);
    } else if (d->left == 0 && !d->input_ended) {
        int r = fill(d, e);
        if (r < 0)
            return r;
    }

    size_t left_before = d->left, room_before = *room;
    int r = inflater_run(d->inflater, &d->at, &d->left, out, room, &why);
    if (r < 0)
        return broken("gzip", why, e);
    d->between = r == 1;
    d->any |= d->between;
    if (r == 0 && d->left == left_before && *room == room_before) {
        if (d->input_ended)
            return broken("gzip", "it ends too early", e);
        return fill(d, e);
    }
    return 0;
}

static int step_zstd(struct decoder *d, uint8_t **out, size_t *room, struct err *e)
{
    if (d->left == 0 && !d->input_ended) {
        int r = fill(d, e);
        if (r < 0)
            return r;
    }
    if (d->left == 0 && d->between) {
        if (!d->any)
            return broken("zstd", "it is empty", e);
        return drain(d, e) < 0 ? ERR_RETURN : 1;
    }

    ZSTD_inBuffer in = {.src = d->at, .size = d->left};
    ZSTD_outBuffer to = {.dst = *out, .size = *room};
    size_t r = ZSTD_decompressStream(d->zstd, &to, &in);
    if (ZSTD_isError(r))
        return broken("zstd", ZSTD_getErrorName(r), e);
    d->at += in.pos;
    d->left -= in.pos;
    *out += to.pos;
    *room -= to.pos;
    d->between = r == 0;
    d->any |= d->between;
    if (r != 0 && in.pos == 0 && to.pos == 0 && d->input_ended)
        return broken("zstd", "it ends too early", e);
    return 0;
}

static int step_plain(struct decoder *d, uint8_t **out, size_t *room, struct err *e)
{
    if (d->left == 0) {
        if (d->input_ended)
            return drain(d, e) < 0 ? ERR_RETURN : 1;
        return fill(d, e);
    }
    size_t n = MIN_OF(d->left, *room);
    memcpy(*out, d->at, n);
    *out += n;
    *room -= n;
    d->at += n;
    d->left -= n;
    return 0;
}

ssize_t decoder_read(struct decoder *d, uint8_t *bytes, size_t size, struct err *e)
{
    uint8_t *out = bytes;
    size_t room = size;

    while (room > 0 && !d->ended) {
        int r = d->format == DECODE_GZIP   ? step_gzip(d, &out, &room, e)
                : d->format == DECODE_ZSTD ? step_zstd(d, &out, &room, e)
                                           : step_plain(d, &out, &room, e);
        if (r < 0)
            return r;
    }
    return (ssize_t)(size - room);
}

int decoder_blob(struct decoder *d, uint8_t ret_hash[32], uint64_t *ret_bytes, struct err *e)
{
    if (EVP_DigestFinal_ex(d->hash, ret_hash, NULL) != 1)
        return err_set(e, ERR_INTERNAL, "hash layer");
    *ret_bytes = d->blob_bytes;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <openssl/sha.h>
#include <stdio.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>

#include "base/fs.h"
#include "base/log.h"
#include "worker/decode.h"

#define PLAIN_BYTES 700000

static uint8_t plain[PLAIN_BYTES];

static void make_plain(void)
{
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof(plain); i++) {
        x = x * 1664525 + 1013904223;
        plain[i] = (i / 1000) % 2 ? (uint8_t)(x >> 24) : (uint8_t)(i / 100);
    }
}

static size_t deflate_gzip(const uint8_t *bytes, size_t n, uint8_t *out, size_t size)
{
    z_stream s = {0};
    assert_int_equal(deflateInit2(&s, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    s.next_in = (uint8_t *)bytes;
    s.avail_in = (uInt)n;
    s.next_out = out;
    s.avail_out = (uInt)size;
    assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
    size -= s.avail_out;
    deflateEnd(&s);
    return size;
}

static int fd_of(const uint8_t *bytes, size_t n)
{
    int fd = memfd_create("blob", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fs_write_all(fd, bytes, n), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void freep(struct decoder **d)
{
    *d = decoder_free(*d);
}

/* Decodes all of it with reads of `step` bytes: the size, or the negated code of the error. */
static ssize_t decode(const uint8_t *bytes, size_t n, enum decode_format format, size_t step,
                      uint8_t *out, size_t size)
{
    _close_ int fd = fd_of(bytes, n);
    _cleanup_(freep) struct decoder *d = NULL;
    struct err e = ERR_INIT;
    size_t done = 0;
    ssize_t r;

    if (decoder_new(fd, format, &d, &e) < 0)
        return -(ssize_t)e.code;
    while ((r = decoder_read(d, out + done, step < size - done ? step : size - done, &e)) > 0)
        done += (size_t)r;
    if (r < 0)
        return -(ssize_t)e.code;

    uint8_t hash[32], expected[32];
    uint64_t blob_bytes;
    assert_int_equal(decoder_blob(d, hash, &blob_bytes, NULL), 0);
    SHA256(bytes, n, expected);
    assert_memory_equal(hash, expected, 32);
    assert_int_equal(blob_bytes, n);
    return (ssize_t)done;
}

static uint8_t packed[2 * PLAIN_BYTES];
static uint8_t out[2 * PLAIN_BYTES];

static void check(size_t n, enum decode_format format)
{
    static const size_t steps[] = {1000, 4096, 262144, sizeof(out)};
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        assert_int_equal(decode(packed, n, format, steps[i], out, sizeof(out)), PLAIN_BYTES);
        assert_memory_equal(out, plain, PLAIN_BYTES);
    }
}

static void test_gzip(void **state)
{
    size_t n = deflate_gzip(plain, sizeof(plain), packed, sizeof(packed));
    check(n, DECODE_AUTO);
    check(n, DECODE_GZIP);
    memset(packed + n, 0, 5000);
    check(n + 5000, DECODE_GZIP);
    assert_true(decode(packed, n, DECODE_ZSTD, 4096, out, sizeof(out)) < 0);
}

static void test_gzip_members(void **state)
{
    static const size_t sizes[] = {1, 7, 8, 9, 100, 65535, 65536, 300000};
    size_t n = 0, at = 0;
    for (size_t i = 0; at < sizeof(plain); i++) {
        size_t part = MIN_OF(sizes[i % ARRAY_SIZE(sizes)], sizeof(plain) - at);
        n += deflate_gzip(plain + at, part, packed + n, sizeof(packed) - n);
        at += part;
    }
    n += deflate_gzip(plain, 0, packed + n, sizeof(packed) - n);
    check(n, DECODE_GZIP);
}

static void test_gzip_broken(void **state)
{
    size_t n = deflate_gzip(plain, 50000, packed, sizeof(packed));
    for (size_t cut = 0; cut < n; cut += cut < 40 || cut > n - 20 ? 1 : 997)
        assert_int_equal(decode(packed, cut, DECODE_GZIP, 4096, out, sizeof(out)),
                         -ERR_INVALID_ARGUMENT);
    for (size_t i = n - 8; i < n; i++) {
        packed[i] ^= 1;
        assert_int_equal(decode(packed, n, DECODE_GZIP, 4096, out, sizeof(out)),
                         -ERR_INVALID_ARGUMENT);
        packed[i] ^= 1;
    }
    assert_int_equal(decode(packed, n, DECODE_GZIP, 4096, out, sizeof(out)), 50000);
}

static void test_zstd(void **state)
{
    size_t half = sizeof(plain) / 2;
    size_t n = ZSTD_compress(packed, sizeof(packed), plain, half, 3);
    memcpy(packed + n, "\x51\x2a\x4d\x18\x03\0\0\0abc", 11);
    n += 11;
    n += ZSTD_compress(packed + n, sizeof(packed) - n, plain + half, sizeof(plain) - half, 9);
    check(n, DECODE_AUTO);
    check(n, DECODE_ZSTD);
    for (size_t cut = 0; cut < n; cut += 9973)
        if (decode(packed, cut, DECODE_ZSTD, 4096, out, sizeof(out)) != -ERR_INVALID_ARGUMENT)
            fail_msg("accepted at %zu", cut);
    memcpy(packed + n, "tail", 4);
    assert_int_equal(decode(packed, n + 4, DECODE_ZSTD, 4096, out, sizeof(out)),
                     -ERR_INVALID_ARGUMENT);
}

static void test_plain(void **state)
{
    memcpy(packed, plain, sizeof(plain));
    packed[0] = 'x';
    assert_int_equal(decode(packed, sizeof(plain), DECODE_AUTO, 4096, out, sizeof(out)),
                     PLAIN_BYTES);
    assert_memory_equal(out, packed, PLAIN_BYTES);
    assert_int_equal(decode(packed, 0, DECODE_AUTO, 4096, out, sizeof(out)), 0);
    assert_int_equal(decode(packed, 1, DECODE_AUTO, 4096, out, sizeof(out)), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gzip),        cmocka_unit_test(test_gzip_members),
        cmocka_unit_test(test_gzip_broken), cmocka_unit_test(test_zstd),
        cmocka_unit_test(test_plain),
    };
    log_set_level(LOG_FATAL);
    make_plain();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

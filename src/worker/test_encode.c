/* SPDX-License-Identifier: Apache-2.0 */
/* What the encoder writes the decoder reads back. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>

#include "base/fs.h"
#include "worker/drain.h"

#define BYTES (3 * 1024 * 1024 + 17)

static uint8_t bytes[BYTES], back[BYTES + 1];

/* Half of it is noise, so that output comes all along and more than a buffer at a time. */
static void fill(void)
{
    uint32_t x = 1;
    for (size_t i = 0; i < BYTES; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = i / 65536 % 2 ? (uint8_t)(x >> 24) : (uint8_t)(i / 100);
    }
}

static size_t encode(int fd, enum decode_format format, size_t n, size_t piece)
{
    struct encoder *x = NULL;

    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(encoder_new(fd, format, &x, NULL), 0);
    for (size_t at = 0; at < n; at += piece)
        assert_int_equal(encoder_write(x, bytes + at, MIN_OF(piece, n - at), NULL), 0);
    assert_int_equal(encoder_finish(x, NULL), 0);
    encoder_free(x);
    return (size_t)lseek(fd, 0, SEEK_CUR);
}

static void check(int fd, enum decode_format format, size_t n)
{
    struct decoder *x = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(decoder_new(fd, format, &x, &e), 0);
    assert_int_equal(decoder_read(x, back, sizeof(back), &e), n);
    assert_memory_equal(back, bytes, n);
    decoder_free(x);
}

static void test_round_trip(void **state)
{
    static const enum decode_format formats[] = {DECODE_TAR, DECODE_GZIP, DECODE_ZSTD};
    static const size_t sizes[] = {1, 1024, BYTES}, pieces[] = {1000, 256 * 1024, BYTES};
    _close_ int fd = memfd_create("encoded", MFD_CLOEXEC);

    (void)state;
    fill();
    for (size_t f = 0; f < ARRAY_SIZE(formats); f++)
        for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
            for (size_t p = 0; p < ARRAY_SIZE(pieces); p++) {
                size_t n = encode(fd, formats[f], sizes[s], pieces[p]);
                check(fd, formats[f], sizes[s]);
                if (formats[f] != DECODE_TAR && sizes[s] == BYTES)
                    assert_true(n < BYTES / 3 * 2);
            }
}

static void test_nothing(void **state)
{
    _close_ int fd = memfd_create("encoded", MFD_CLOEXEC);

    (void)state;
    assert_true(encode(fd, DECODE_GZIP, 0, 1) > 0);
    check(fd, DECODE_GZIP, 0);
    assert_true(encode(fd, DECODE_ZSTD, 0, 1) > 0);
    check(fd, DECODE_ZSTD, 0);
    assert_int_equal(encode(fd, DECODE_TAR, 0, 1), 0);
}

/* In whatever pieces the tar comes: the encoder must not see them. */
static void test_pieces_make_no_difference(void **state)
{
    _close_ int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC);
    static const size_t pieces[] = {512, 100000};
    static uint8_t one[BYTES], other[BYTES];
    uint8_t hash[2][32];

    (void)state;
    fill();
    for (int i = 0; i < 2; i++) {
        struct drain d;
        assert_int_equal(drain_start(&d, i ? b : a, DECODE_GZIP, true, NULL), 0);
        for (size_t at = 0; at < BYTES; at += pieces[i])
            assert_int_equal(drain_write(&d, bytes + at, MIN_OF(pieces[i], BYTES - at), NULL), 0);
        assert_int_equal(drain_finish(&d, NULL), 0);
        assert_int_equal(d.size_bytes, BYTES);
        memcpy(hash[i], d.hash, 32);
        drain_done(&d);
    }
    check(a, DECODE_GZIP, BYTES);
    assert_memory_equal(hash[0], hash[1], 32);
    assert_int_equal(lseek(a, 0, SEEK_SET) + lseek(b, 0, SEEK_SET), 0);
    ssize_t n = fs_read_all(a, one, sizeof(one)), m = fs_read_all(b, other, sizeof(other));
    assert_true(n > 0 && n == m);
    assert_memory_equal(one, other, n);
}

static void test_reader_that_went_away(void **state)
{
    struct err e = ERR_INIT;
    struct drain d;
    int fds[2], r = 0;

    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    close(fds[0]);
    assert_int_equal(drain_start(&d, fds[1], DECODE_TAR, true, &e), 0);
    for (int i = 0; i < 100 && r == 0; i++)
        r = drain_write(&d, bytes, BYTES, &e);
    assert_true(r < 0);
    assert_int_equal(e.errnum, EPIPE);
    drain_done(&d);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_pieces_make_no_difference),
        cmocka_unit_test(test_reader_that_went_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

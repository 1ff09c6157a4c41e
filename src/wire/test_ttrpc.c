/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/ttrpc.h"

/* The end of the last payload; frames lend theirs only until the next one is asked for. */
static char tail[4];

/* Gives the decoder n bytes, as many at a time as it makes room for but at most `step`. Returns how
 * many frames came; *last is the last one. */
static int feed(struct ttrpc_decoder *d, const uint8_t *bytes, size_t n, size_t step,
                struct ttrpc_frame *last)
{
    int frames = 0;

    while (n > 0) {
        uint8_t *space;
        size_t size;
        assert_int_equal(ttrpc_decoder_space(d, &space, &size), 0);
        assert_true(size > 0);
        size = MIN_OF(MIN_OF(size, n), step);
        memcpy(space, bytes, size);
        ttrpc_decoder_fed(d, size);
        bytes += size;
        n -= size;
        while (ttrpc_decoder_next(d, last) > 0) {
            size_t n_tail = last->payload ? MIN_OF(last->length, (uint32_t)3) : 0;
            memset(tail, 0, sizeof(tail));
            if (n_tail > 0)
                memcpy(tail, last->payload + last->length - n_tail, n_tail);
            frames++;
        }
    }
    return frames;
}

static void frames_are_read_in_any_pieces(_unused_ void **state)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(1 << 20);
    struct ttrpc_frame f;

    assert_int_equal(ttrpc_encode(&out, 1, TTRPC_REQUEST, "hello", 5), 0);
    assert_int_equal(ttrpc_encode(&out, 3, TTRPC_REQUEST, NULL, 0), 0);
    assert_int_equal(ttrpc_encode(&out, 0x01020304, TTRPC_DATA, "xyz", 3), 0);
    assert_int_equal(out.len, 3 * TTRPC_HEADER_SIZE + 8);
    for (size_t step = 1; step <= out.len; step++) {
        struct ttrpc_decoder d;
        ttrpc_decoder_init(&d);
        assert_int_equal(feed(&d, buf_head(&out), out.len, step, &f), 3);
        assert_int_equal(f.stream_id, 0x01020304);
        assert_int_equal(f.type, TTRPC_DATA);
        assert_int_equal(f.length, 3);
        assert_string_equal(tail, "xyz");
        ttrpc_decoder_done(&d);
    }
}

static void layout_is_the_protocols(_unused_ void **state)
{
    static const uint8_t wanted[] = {0, 0, 0, 2, 0, 0, 1, 0x2d, 2, 0, 'o', 'k'};
    _cleanup_(buf_done) struct buf out = BUF_INIT(64);

    assert_int_equal(ttrpc_encode(&out, 301, TTRPC_RESPONSE, "ok", 2), 0);
    assert_int_equal(out.len, sizeof(wanted));
    assert_memory_equal(buf_head(&out), wanted, sizeof(wanted));
}

static void largest_frame_passes(_unused_ void **state)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(5 << 20);
    _free_ char *payload = calloc(1, TTRPC_PAYLOAD_MAX + 1);
    struct ttrpc_decoder d;
    struct ttrpc_frame f;

    payload[TTRPC_PAYLOAD_MAX - 1] = 'z';
    assert_int_equal(ttrpc_encode(&out, 1, 1, payload, TTRPC_PAYLOAD_MAX), 0);
    ttrpc_decoder_init(&d);
    assert_int_equal(feed(&d, buf_head(&out), out.len, SIZE_MAX, &f), 1);
    assert_false(f.oversize);
    assert_int_equal(tail[2], 'z');
    assert_int_equal(ttrpc_decoder_next(&d, &f), 0);
    assert_null(d.in.data); /* its memory is not kept */
    ttrpc_decoder_done(&d);

    buf_clear(&out);
    assert_int_equal(ttrpc_encode(&out, 1, 1, payload, TTRPC_PAYLOAD_MAX + 1), -EMSGSIZE);
    assert_int_equal(out.len, 0);
    struct buf small = BUF_INIT(12);
    assert_int_equal(ttrpc_encode(&small, 1, 1, "abc", 3), -ENOBUFS);
    assert_int_equal(small.len, 0);
    buf_done(&small);
}

static void oversize_frame_is_passed_over(_unused_ void **state)
{
    const uint32_t length = TTRPC_PAYLOAD_MAX + 1;
    size_t n = TTRPC_HEADER_SIZE + length + TTRPC_HEADER_SIZE + 1;
    _free_ char *bytes = calloc(1, n);
    uint8_t *b = (uint8_t *)bytes;
    struct ttrpc_decoder d;
    struct ttrpc_frame f;

    b[1] = 0x40;
    b[3] = 1;
    b[7] = 5;
    b[8] = TTRPC_REQUEST;
    uint8_t *second = b + TTRPC_HEADER_SIZE + length;
    second[3] = 1;
    second[7] = 7;
    second[8] = TTRPC_REQUEST;
    second[10] = 'k';

    ttrpc_decoder_init(&d);
    assert_int_equal(feed(&d, b, TTRPC_HEADER_SIZE, SIZE_MAX, &f), 1);
    assert_true(f.oversize);
    assert_null(f.payload);
    assert_int_equal(f.stream_id, 5);
    assert_int_equal(f.length, length);
    assert_int_equal(feed(&d, b + TTRPC_HEADER_SIZE, n - TTRPC_HEADER_SIZE, SIZE_MAX, &f), 1);
    assert_int_equal(f.stream_id, 7);
    assert_string_equal(tail, "k");
    assert_true(d.in.allocated < 65536);
    ttrpc_decoder_done(&d);
}

static void declared_length_costs_nothing(_unused_ void **state)
{
    static const uint8_t header[TTRPC_HEADER_SIZE] = {0, 0x40, 0, 0, 0, 0, 0, 1, 1, 0};
    struct ttrpc_decoder d;
    struct ttrpc_frame f;
    uint8_t *space;
    size_t size;

    ttrpc_decoder_init(&d);
    assert_int_equal(feed(&d, header, sizeof(header), 3, &f), 0);
    assert_int_equal(ttrpc_decoder_space(&d, &space, &size), 0);
    assert_true(d.in.allocated <= 8192);
    ttrpc_decoder_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_are_read_in_any_pieces),
        cmocka_unit_test(layout_is_the_protocols),
        cmocka_unit_test(largest_frame_passes),
        cmocka_unit_test(oversize_frame_is_passed_over),
        cmocka_unit_test(declared_length_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

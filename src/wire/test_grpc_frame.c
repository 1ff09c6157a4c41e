/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/grpc_frame.h"
#include "wire/grpc_headers.h"

static void make(uint8_t *out, uint8_t flag, uint32_t length)
{
    grpc_prefix_write(out, length);
    out[0] = flag;
}

/* Three messages, cut at every place. */
static void test_every_cut(_unused_ void **state)
{
    uint8_t stream[3 * GRPC_PREFIX_SIZE + 10 + 0 + 3];
    static const size_t sizes[] = {10, 0, 3};
    size_t at = 0;

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        make(stream + at, 0, (uint32_t)sizes[i]);
        at += GRPC_PREFIX_SIZE;
        memset(stream + at, 'a' + (int)i, sizes[i]);
        at += sizes[i];
    }
    assert_int_equal(at, sizeof(stream));

    for (size_t step = 1; step <= sizeof(stream); step++) {
        struct grpc_decoder d;
        size_t messages = 0;
        grpc_decoder_init(&d, 10);
        for (size_t done = 0; done < sizeof(stream);) {
            size_t used, n = MIN_OF(step, sizeof(stream) - done);
            int r = grpc_decoder_feed(&d, stream + done, n, &used);
            assert_true(r >= 0);
            assert_true(used > 0);
            done += used;
            if (r == 0)
                continue;
            uint8_t *payload;
            size_t size;
            grpc_decoder_take(&d, &payload, &size);
            assert_int_equal(size, sizes[messages]);
            for (size_t i = 0; i < size; i++)
                assert_int_equal(payload[i], 'a' + (int)messages);
            free(payload);
            messages++;
        }
        assert_int_equal(messages, 3);
        assert_false(grpc_decoder_is_partial(&d));
        grpc_decoder_done(&d);
    }
}

static void test_limit(_unused_ void **state)
{
    struct grpc_decoder d;
    uint8_t prefix[GRPC_PREFIX_SIZE];
    size_t used;

    make(prefix, 0, 101);
    grpc_decoder_init(&d, 100);
    assert_int_equal(grpc_decoder_feed(&d, prefix, sizeof(prefix), &used), -EMSGSIZE);
    assert_int_equal(grpc_decoder_length(&d), 101);
    assert_null(d.payload);
    grpc_decoder_done(&d);

    make(prefix, 0, UINT32_MAX);
    grpc_decoder_init(&d, 16u << 20);
    assert_int_equal(grpc_decoder_feed(&d, prefix, sizeof(prefix), &used), -EMSGSIZE);
    grpc_decoder_done(&d);

    make(prefix, 0, 100);
    grpc_decoder_init(&d, 100);
    assert_int_equal(grpc_decoder_feed(&d, prefix, sizeof(prefix), &used), 0);
    assert_true(grpc_decoder_is_partial(&d));
    grpc_decoder_done(&d);
}

/* Nothing is allocated for what was only declared. */
static void test_memory_follows_bytes(_unused_ void **state)
{
    struct grpc_decoder d;
    uint8_t prefix[GRPC_PREFIX_SIZE], block[4096] = {};
    size_t used;

    make(prefix, 0, 16u << 20);
    grpc_decoder_init(&d, 16u << 20);
    assert_int_equal(grpc_decoder_feed(&d, prefix, sizeof(prefix), &used), 0);
    assert_null(d.payload);
    for (size_t fed = 0; fed < 16u << 20; fed += sizeof(block)) {
        int r = grpc_decoder_feed(&d, block, sizeof(block), &used);
        assert_int_equal(used, sizeof(block));
        assert_true(d.allocated <= 2 * (fed + sizeof(block)));
        assert_int_equal(r, fed + sizeof(block) == 16u << 20);
    }
    grpc_decoder_done(&d);
}

static void test_compressed(_unused_ void **state)
{
    uint8_t prefix[GRPC_PREFIX_SIZE];

    for (int flag = 1; flag < 256; flag++) {
        struct grpc_decoder d;
        size_t used;
        make(prefix, (uint8_t)flag, 0);
        grpc_decoder_init(&d, 100);
        assert_int_equal(grpc_decoder_feed(&d, prefix, sizeof(prefix), &used), -ENOTSUP);
        assert_int_equal(grpc_decoder_flag(&d), flag);
        grpc_decoder_done(&d);
    }
}

static void test_headers(_unused_ void **state)
{
    struct grpc_headers h = {};

    assert_null(grpc_headers_get(&h, "a"));
    assert_int_equal(grpc_headers_count(&h, "a"), 0);
    assert_int_equal(grpc_headers_add(&h, "a", 1, "1", 1), 0);
    assert_int_equal(grpc_headers_add(&h, "b", 1, "", 0), 0);
    assert_int_equal(grpc_headers_add(&h, "a", 1, "b", 1), 0);
    assert_string_equal(grpc_headers_get(&h, "a"), "1");
    assert_string_equal(grpc_headers_get(&h, "b"), "");
    assert_int_equal(grpc_headers_count(&h, "a"), 2);
    assert_int_equal(grpc_headers_count(&h, "b"), 1);
    assert_int_equal(grpc_headers_count(&h, "1"), 0);
    grpc_headers_done(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_memory_follows_bytes),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

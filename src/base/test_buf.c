/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"

static void appends_and_consumes(void **state)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(1 << 20);
    char expected[64];

    assert_null(buf_head(&b));
    for (int i = 0; i < 5000; i++)
        assert_int_equal(buf_printf(&b, "%d,", i), 0);
    for (int i = 0; i < 5000; i++) {
        int n = snprintf(expected, sizeof(expected), "%d,", i);
        assert_memory_equal(buf_head(&b), expected, (size_t)n);
        buf_consume(&b, (size_t)n);
    }
    assert_int_equal(b.len, 0);
    buf_trim(&b);
    assert_null(b.data);
}

static void keeps_the_cap(void **state)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(10);
    uint8_t *p;

    assert_int_equal(buf_append_str(&b, "0123456789"), 0);
    assert_int_equal(buf_append(&b, "x", 1), -ENOBUFS);
    assert_int_equal(buf_printf(&b, "%d", 1), -ENOBUFS);
    assert_int_equal(buf_reserve(&b, 1, &p), -ENOBUFS);
    assert_int_equal(buf_reserve(&b, SIZE_MAX, &p), -ENOBUFS);
    assert_int_equal(b.len, 10);
    buf_consume(&b, 3);
    assert_int_equal(buf_printf(&b, "%s", "abcd"), -ENOBUFS);
    assert_int_equal(buf_printf(&b, "%s", "abc"), 0);
    assert_int_equal(b.len, 10);
    assert_memory_equal(buf_head(&b), "3456789abc", 10);
}

static void reuses_the_front(void **state)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(1000);
    uint8_t chunk[100] = {};

    /* A queue that never holds much does not grow. */
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(buf_append(&b, chunk, sizeof(chunk)), 0);
        if (b.len > 300)
            buf_consume(&b, 200);
    }
    assert_true(b.allocated <= 2048);
}

static void gives_the_string_away(void **state)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(100);
    _free_ char *empty = buf_take_str(&b);

    assert_string_equal(empty, "");
    assert_int_equal(buf_append_str(&b, "xyz"), 0);
    buf_consume(&b, 1);
    _free_ char *s = buf_take_str(&b);
    assert_string_equal(s, "yz");
    assert_int_equal(b.len, 0);
    assert_null(b.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_and_consumes),
        cmocka_unit_test(keeps_the_cap),
        cmocka_unit_test(reuses_the_front),
        cmocka_unit_test(gives_the_string_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"

static void compares(void **state)
{
    assert_true(str_eq(NULL, NULL));
    assert_false(str_eq(NULL, ""));
    assert_true(str_eq("a", "a"));
    assert_string_equal(str_after_prefix("unix:///x", "unix://"), "/x");
    assert_null(str_after_prefix("uni", "unix"));
    assert_true(str_has_suffix("a.toml", ".toml"));
    assert_false(str_has_suffix("toml", ".toml"));
}

static void reads_numbers(void **state)
{
    uint64_t u = 7;
    int64_t i = 7;
    uint32_t w = 7;

    assert_int_equal(str_to_u64("18446744073709551615", &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(str_to_u64("18446744073709551616", &u), -ERANGE);
    assert_int_equal(str_to_u64("", &u), -EINVAL);
    assert_int_equal(str_to_u64(NULL, &u), -EINVAL);
    assert_int_equal(str_to_u64(" 1", &u), -EINVAL);
    assert_int_equal(str_to_u64("+1", &u), -EINVAL);
    assert_int_equal(str_to_u64("1x", &u), -EINVAL);
    assert_true(u == UINT64_MAX);
    assert_int_equal(str_to_i64("-9223372036854775808", &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(str_to_i64("9223372036854775808", &i), -ERANGE);
    assert_int_equal(str_to_i64("--1", &i), -EINVAL);
    assert_int_equal(str_to_i64("-", &i), -EINVAL);
    assert_int_equal(str_to_u32("4294967295", &w), 0);
    assert_int_equal(str_to_u32("4294967296", &w), -ERANGE);
}

static void reads_sizes(void **state)
{
    static const struct {
        const char *s;
        int r;
        uint64_t v;
    } cases[] = {
        {"512", 0, 512},
        {"512b", 0, 512},
        {"64k", 0, 65536},
        {"64KB", 0, 65536},
        {"32MiB", 0, 32 << 20},
        {"1g", 0, 1 << 30},
        {"2T", 0, UINT64_C(2) << 40},
        {"16383p", 0, UINT64_C(16383) << 50},
        {"16384p", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"k", -EINVAL, 0},
        {"1kk", -EINVAL, 0},
        {"1bb", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"1 k", -EINVAL, 0},
        {"1x", -EINVAL, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t v = 0;
        assert_int_equal(str_to_size(cases[i].s, &v), cases[i].r);
        assert_true(v == cases[i].v);
    }
}

static void reads_digits(void **state)
{
    const char *s = "2026-1x";

    assert_int_equal(str_digit('f', 16), 15);
    assert_int_equal(str_digit('F', 16), 15);
    assert_int_equal(str_digit('g', 16), -1);
    assert_int_equal(str_digit('8', 8), -1);
    assert_int_equal(str_digit('/', 10), -1);
    assert_int_equal(str_digit('\0', 16), -1);
    assert_int_equal(str_take_digits(&s, 4), 2026);
    assert_false(str_take_char(&s, 'x'));
    assert_true(str_take_char(&s, '-'));
    assert_int_equal(str_take_digits(&s, 2), -1);
}

static void writes_hex(void **state)
{
    char out[7];

    str_hex((const uint8_t *)"\x00\x9f\xff", 3, out);
    assert_string_equal(out, "009fff");
}

static void knows_utf8(void **state)
{
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf", "\xe0\x80\x80", "\xed\xa0\x80",
        "\xf0\x80\x80", "\xf4\x90\x80\x80", "\xf8\x88", "\xe2\x82",     "a\xff"};
    uint32_t c;
    char out[4];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(str_is_utf8(bad[i], strlen(bad[i])));
    assert_true(str_is_utf8("aé€😀", strlen("aé€😀")));
    assert_false(str_is_utf8("a\0b", 3));
    assert_true(str_is_utf8(NULL, 0));
    for (c = 1; c <= 0x10ffff; c += 7) {
        uint32_t back = 0;
        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        size_t n = str_utf8_encode(c, out);
        assert_int_equal(str_utf8_decode(out, n, &back), n);
        assert_int_equal(back, c);
        assert_int_equal(str_utf8_decode(out, n - 1, &back), -EILSEQ);
    }
}

static void quotes_as_go_does(void **state)
{
    static const char *const cases[][2] = {
        {"", "\"\""},
        {"a b", "\"a b\""},
        {"a\"\\\n\t\a\b\f\r\v", "\"a\\\"\\\\\\n\\t\\a\\b\\f\\r\\v\""},
        {"\x01\x7f", "\"\\x01\\x7f\""},
        {"é€😀", "\"é€😀\""},
        {"\xff"
         "a",
         "\"\\xffa\""},
        {"\xc2\x85", "\"\\u0085\""},
        {"\xe2\x80\xae", "\"\\u202e\""},
        {"\xf3\xa0\x80\x81", "\"\\U000e0001\""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _free_ char *q = str_quote(cases[i][0]);
        assert_string_equal(q, cases[i][1]);
    }
}

static void keeps_vectors(void **state)
{
    _cleanup_(strv_freep) char **v = NULL;

    assert_int_equal(strv_len(NULL), 0);
    for (int i = 0; i < 20; i++) {
        _free_ char *item = str_printf("item-%d", i);
        assert_int_equal(strv_push(&v, item), 0);
    }
    _cleanup_(strv_freep) char **copy = strv_dup(v);
    assert_int_equal(strv_push(&copy, "more"), 0);
    assert_int_equal(strv_len(v), 20);
    assert_int_equal(strv_len(copy), 21);
    assert_string_equal(copy[19], "item-19");
    assert_string_equal(copy[20], "more");
    _cleanup_(strv_freep) char **empty = strv_dup(NULL);
    assert_non_null(empty);
    assert_null(empty[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares),          cmocka_unit_test(reads_numbers),
        cmocka_unit_test(reads_sizes),       cmocka_unit_test(reads_digits),
        cmocka_unit_test(writes_hex),        cmocka_unit_test(knows_utf8),
        cmocka_unit_test(quotes_as_go_does), cmocka_unit_test(keeps_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

#include "cli/table.h"

static void test_alignment(void **state)
{
    static const char *const headings[] = {"NAME", "SIZE", "X"};
    _cleanup_(table_done) struct table t;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    table_init(&t, 3, headings);
    table_cell(&t, "a");
    table_cellf(&t, "%d", 12345);
    table_cell(&t, NULL);
    table_cell(&t, "b\xc3\xa4r");
    table_cell(&t, "");
    assert_int_equal(table_print(&t, out), 0);
    fclose(out);
    assert_string_equal(text, "NAME  SIZE   X\n"
                              "a     12345  -\n"
                              "b\xc3\xa4r   -      -\n");
    free(text);
}

static void test_escape(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"plain", "plain"},         {"a\nb\tc", "a\\nb\\tc"}, {"\x1b[2J", "\\x1b[2J"},
        {"\xff\xfe", "\\xff\\xfe"}, {"\xc2\x9b", "\\x9b"},    {"\xe2\x80\xae", "\\u202e"},
        {"\xc3\xa9", "\xc3\xa9"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _free_ char *escaped = table_escape(cases[i].in);
        assert_string_equal(escaped, cases[i].out);
    }
}

static void test_formats(void **state)
{
    char size[TABLE_SIZE_MAX], age[TABLE_AGE_MAX];

    table_format_size(0, size);
    assert_string_equal(size, "0 B");
    table_format_size(1536, size);
    assert_string_equal(size, "1.5 KiB");
    table_format_size(200 << 20, size);
    assert_string_equal(size, "200 MiB");
    table_format_age(-5, age);
    assert_string_equal(age, "0 seconds");
    table_format_age(60, age);
    assert_string_equal(age, "1 minute");
    table_format_age(3 * 86400 + 5, age);
    assert_string_equal(age, "3 days");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

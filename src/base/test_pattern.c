/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/pattern.h"

static void finds_what_re2_finds(void **state)
{
    static const struct {
        const char *expression, *text;
        bool found;
    } cases[] = {
        {"", "x", true},
        {"abc", "xxabcxx", true},
        {"^abc$", "xabc", false},
        {"^abc$", "abc\n", false},
        {"a.c", "a\nc", false},
        {"a.c", "abc", true},
        {"\\d+", "a1", true},
        {"^\\d+$", "12a", false},
        {"^\\D+$", "abc", true},
        {"^\\w+$", "a_1Z", true},
        {"^\\w+$", "a-1", false},
        {"\\W", "a-1", true},
        {"^\\s$", "\t", true},
        {"^\\s$", "\v", false},
        {"^\\S+$", "a b", false},
        {"\\bfoo\\b", "a foo b", true},
        {"\\bfoo\\b", "afoo", false},
        {"o\\B", "foo", true},
        {"\\Aab\\z", "ab", true},
        {"(?:ab)+c", "ababc", true},
        {"(?P<name>x)y", "xy", true},
        {"(?i)HELLO", "say hello", true},
        {"a+?b", "aaab", true},
        {"^a{2,3}$", "aa", true},
        {"^a{2,3}$", "aaaa", false},
        {"^a{2}$", "aa", true},
        {"^a{2,}$", "aaaaaa", true},
        {"a{,2}", "a{,2}", true},
        {"x{y}", "x{y}", true},
        {"^[a-c]+$", "abc", true},
        {"^[^a-c]+$", "xyz", true},
        {"^[]a]+$", "]a", true},
        {"^[\\]\\-\\^]+$", "]-^", true},
        {"^[\\w.-]+$", "a.b-c_d", true},
        {"^[\\w.-]+$", "a/b", false},
        {"^[^\\d]$", "5", false},
        {"^[^\\D]$", "5", true},
        {"^[[:alpha:][:digit:]]+$", "aZ9", true},
        {"^[[:^alpha:]]+$", "123", true},
        {"^[\\^]$", "^", true},
        {"^[\\^]$", "\\", false},
        {"^[[.]+$", "[.", true},
        {"^[[:]+$", "[:", true},
        {"^\\x41\\x{42}\\103$", "ABC", true},
        {"\\Qa.b\\E+", "a.bbb", true},
        {"\\Qa.b", "axb", false},
        {"^é+$", "ééé", true},
        {"^(a|b|)$", "", true},
        {"a|b", "b", true},
        {"\\.", "x", false},
        {"\\/", "/", true},
        {"^/tasks/(exit|start)$", "/tasks/exit", true},
        {"]", "]", true},
        {"}", "}", true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pattern *p = NULL;
        const char *why = NULL;
        int r = pattern_compile(cases[i].expression, &p, &why);
        if (r != 0)
            print_error("%s: %s\n", cases[i].expression, why);
        assert_int_equal(r, 0);
        if (pattern_matches(p, cases[i].text) != cases[i].found)
            fail_msg("%s on %s", cases[i].expression, cases[i].text);
        pattern_free(p);
    }
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "(",
        ")",
        "(a",
        "[a",
        "[z-a]",
        "*a",
        "a**",
        "+",
        "a|*",
        "\\",
        "\\1",
        "(a)\\1",
        "\\pL",
        "\\p{Greek}",
        "(?m)a",
        "(?=a)",
        "a{1001}",
        "a{3,2}",
        "[[:no:]]",
        "(a{500}){500}",
        "\\x",
        "\\xZZ",
        "\\x{}",
        "\\q",
        "\xff",
        "[é]",
        "((((((((((((((((((((((((((((((((((a))",
        "(?P<>a)",
        "\\x00",
        "[^\\x00-\\x7f]{2000}",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct pattern *p = NULL;
        const char *why = NULL;
        if (pattern_compile(bad[i], &p, &why) != -EINVAL)
            fail_msg("%s was accepted", bad[i]);
        assert_null(p);
        assert_non_null(why);
    }
    char *longer = calloc(1, PATTERN_MAX_LEN + 2);
    struct pattern *p = NULL;
    const char *why = NULL;
    memset(longer, 'a', PATTERN_MAX_LEN + 1);
    assert_int_equal(pattern_compile(longer, &p, &why), -EINVAL);
    free(longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_re2_finds),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/str.h"
#include "shim/logger.h"

static void expect(const char *uri, const char *const *words)
{
    char **got = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(logger_parse_uri(uri, &got, &e), 0);
    for (size_t i = 0; words[i]; i++)
        assert_string_equal(got[i], words[i]);
    assert_int_equal(strv_len(got), strv_len((char *const *)words));
    strv_free(got);
}

static void test_uris(void **state)
{
    expect("binary:///bin/log", (const char *[]){"/bin/log", NULL});
    expect("binary:///bin/log?a=1&b=2", (const char *[]){"/bin/log", "a", "1", "b", "2", NULL});
    expect("binary:///bin/log?flag&a=x%20y+z",
           (const char *[]){"/bin/log", "flag", "", "a", "x y z", NULL});
    expect("binary:///bin/my%20log?a=1&a=2", (const char *[]){"/bin/my log", "a", "1", NULL});
    expect("binary-v2:///l?a==&&#end", (const char *[]){"/l", "a", "=", NULL});
}

static void test_broken_uris(void **state)
{
    static const char *const bad[] = {"binary://",         "binary:///",
                                      "binary://host/log", "binary:///log?a=%zz",
                                      "binary:///log?%0",  "binary:///%00"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char **got = NULL;
        struct err e = ERR_INIT;
        assert_true(logger_parse_uri(bad[i], &got, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uris),
        cmocka_unit_test(test_broken_uris),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

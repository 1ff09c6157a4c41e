/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "base/str.h"
#include "oci/document.h"

static int parse(const char *text)
{
    _json_ json_t *j = NULL;
    struct err e = ERR_INIT;
    if (document_parse(text, strlen(text), 1 << 20, "test", &j, &e) < 0) {
        assert_non_null(str_after_prefix(e.msg, "test "));
        return (int)e.code;
    }
    assert_non_null(j);
    return 0;
}

static void test_parse(void **state)
{
    assert_int_equal(parse("{}"), 0);
    assert_int_equal(parse("{\"a\":[1,{\"b\":null}]} \n"), 0);
    static const char *const bad[] = {
        "",
        "[]",
        "null",
        "1",
        "{",
        "{}x",
        "{\"a\":1,\"a\":2}",
        "{\"a\":}",
        "{'a':1}",
        "{a:1}",
        "{\"a\":NaN}",
        "\xff",
        "{\"\\u0000\":1}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":9223372036854775808}",
        "{\"a\":01}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        if (parse(bad[i]) != ERR_INVALID_ARGUMENT)
            fail_msg("accepted: %s", bad[i]);
}

/* depth brackets around nothing. */
static char *nested(size_t depth)
{
    size_t size = 2 * depth * 5 + 16;
    char *s = malloc(size);
    assert_non_null(s);
    size_t n = 0;
    for (size_t i = 0; i < depth; i++)
        n += (size_t)snprintf(s + n, size - n, "{\"a\":");
    n += (size_t)snprintf(s + n, size - n, "1");
    memset(s + n, '}', depth);
    s[n + depth] = 0;
    return s;
}

static void test_limits(void **state)
{
    _free_ char *allowed = nested(DOCUMENT_DEPTH_MAX);
    _free_ char *over = nested(DOCUMENT_DEPTH_MAX + 1);
    _free_ char *far = nested(100000);
    assert_int_equal(parse(allowed), 0);
    assert_int_equal(parse(over), ERR_INVALID_ARGUMENT);
    assert_int_equal(parse(far), ERR_INVALID_ARGUMENT);
    /* Brackets in strings do not count, quotes behind a backslash do not end one. */
    assert_int_equal(parse("{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
                           "[[[[[[[[[[[[[\\\"{{{{{{\\\\\"}"),
                     0);

    _json_ json_t *j = NULL;
    struct err e = ERR_INIT;
    assert_true(document_parse("{        }", 10, 9, "test", &j, &e) < 0);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
}

static void test_members(void **state)
{
    static const char text[] =
        "{\"s\":\"x\",\"i\":-5,\"b\":true,\"n\":null,\"v\":[\"a\",\"b\"],\"m\":{\"k\":\"w\"}}";
    _json_ json_t *j = NULL;
    _free_ char *s = NULL;
    _cleanup_(strv_freep) char **v = NULL;
    _cleanup_(strmap_done) struct strmap m = {0};
    int64_t i = 1;
    bool b = false;

    assert_int_equal(document_parse(text, strlen(text), 1000, "test", &j, NULL), 0);
    assert_int_equal(document_string(j, "s", &s, NULL), 0);
    assert_string_equal(s, "x");
    assert_int_equal(document_int(j, "i", &i, NULL), 0);
    assert_int_equal(i, -5);
    assert_int_equal(document_bool(j, "b", &b, NULL), 0);
    assert_true(b);
    assert_int_equal(document_strv(j, "v", 2, &v, NULL), 0);
    assert_int_equal(strv_len(v), 2);
    assert_int_equal(document_strmap(j, "m", &m, NULL), 0);
    assert_string_equal(strmap_get(&m, "k"), "w");

    /* Absent and null leave things as they are. */
    assert_int_equal(document_string(j, "n", &s, NULL), 0);
    assert_int_equal(document_string(j, "absent", &s, NULL), 0);
    assert_string_equal(s, "x");

    assert_true(document_string(j, "i", &s, NULL) < 0);
    assert_true(document_int(j, "s", &i, NULL) < 0);
    assert_true(document_bool(j, "i", &b, NULL) < 0);
    assert_true(document_strv(j, "v", 1, &v, NULL) < 0);
    assert_true(document_strv(j, "m", 9, &v, NULL) < 0);
    assert_true(document_strmap(j, "v", &m, NULL) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

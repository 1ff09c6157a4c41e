/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "base/str.h"
#include "oci/platform.h"

static void test_parse(void **state)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"linux/amd64", "linux/amd64"},       {"Linux/X86_64", "linux/amd64"},
        {"linux/arm64/v8", "linux/arm64"},    {"aarch64", "linux/arm64"},
        {"linux/arm", "linux/arm/v7"},        {"linux/arm/6", "linux/arm/v6"},
        {"linux/armhf", "linux/arm/v7"},      {"linux/armel", "linux/arm/v6"},
        {"windows/amd64", "windows/amd64"},   {"linux/i686", "linux/386"},
        {"linux/amd64/v3", "linux/amd64/v3"}, {"macos/arm64", "darwin/arm64"},
    };
    char text[PLATFORM_STR_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct platform p;
        assert_int_equal(platform_parse(cases[i].in, &p, NULL), 0);
        platform_format(&p, text);
        assert_string_equal(text, cases[i].out);
    }

    struct platform p, host;
    platform_host(&host);
    assert_string_equal(host.os, "linux");
    assert_true(*host.architecture);
    assert_int_equal(platform_parse("linux", &p, NULL), 0);
    assert_int_equal(platform_match(&host, &p), PLATFORM_EXACT);
}

static void test_refused(void **state)
{
    static const char *const cases[] = {"",           "/",        "a/",         "/a",
                                        "linux/",     "a/b/c/d",  "linux/arm/", "li nux/arm",
                                        "linux/\xff", "linux/a\n"};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct platform p;
        struct err e = ERR_INIT;
        assert_true(platform_parse(cases[i], &p, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
    char long_name[300];
    memset(long_name, 'a', sizeof(long_name));
    long_name[100] = 0;
    struct platform p;
    assert_true(platform_parse(long_name, &p, NULL) < 0);
    long_name[100] = 'a';
    long_name[299] = 0;
    assert_true(platform_parse(long_name, &p, NULL) < 0);
}

static int match(const char *want, const char *have)
{
    struct platform w, h;
    assert_int_equal(platform_parse(want, &w, NULL), 0);
    assert_int_equal(platform_parse(have, &h, NULL), 0);
    return platform_match(&w, &h);
}

static void test_match(void **state)
{
    assert_int_equal(match("linux/amd64", "linux/x86-64"), PLATFORM_EXACT);
    assert_int_equal(match("linux/arm64/v8", "linux/arm64"), PLATFORM_EXACT);
    assert_int_equal(match("linux/amd64", "linux/arm64"), 0);
    assert_int_equal(match("linux/amd64", "windows/amd64"), 0);
    assert_int_equal(match("linux/amd64", "linux/386"), 0);
    assert_int_equal(match("linux/arm/v6", "linux/arm/v7"), 0);
    assert_int_equal(match("linux/amd64", "linux/amd64/v3"), 0);
    assert_int_equal(match("linux/ppc64le", "linux/s390x"), 0);
    assert_true(match("linux/arm/v7", "linux/arm/v6") > match("linux/arm/v7", "linux/arm/v5"));
    assert_true(match("linux/arm64", "linux/arm/v7") > 0);
    assert_true(match("linux/arm64", "linux/arm64") > match("linux/arm64", "linux/arm/v8"));
    assert_true(match("linux/amd64/v3", "linux/amd64") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

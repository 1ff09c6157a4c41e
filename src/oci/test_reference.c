/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <stdio.h>

#include "base/str.h"
#include "oci/reference.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DIGEST "@sha256:" HEX64

static void test_normalise(void **state)
{
    static const struct {
        const char *in, *full, *familiar;
    } cases[] = {
        {"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
        {"busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"},
        {"library/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
        {"docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
        {"index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"},
        {"grafana/loki:2.9", "docker.io/grafana/loki:2.9", "grafana/loki:2.9"},
        {"localhost/a", "localhost/a:latest", "localhost/a:latest"},
        {"localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"},
        {"host.example/a:t", "host.example/a:t", "host.example/a:t"},
        {"Host/a", "Host/a:latest", "Host/a:latest"},
        {"[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"},
        {"busybox" DIGEST, "docker.io/library/busybox" DIGEST, "busybox" DIGEST},
        {"busybox:t" DIGEST, "docker.io/library/busybox:t" DIGEST, "busybox:t" DIGEST},
        {"a/b/c_d.e--f__g", "docker.io/a/b/c_d.e--f__g:latest", "a/b/c_d.e--f__g:latest"},
        {"docker.io/h.x/b", "docker.io/h.x/b:latest", "docker.io/h.x/b:latest"},
        {"docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _free_ char *full = NULL;
        assert_int_equal(reference_normalise(cases[i].in, &full, NULL), 0);
        assert_string_equal(full, cases[i].full);
        _free_ char *familiar = reference_familiar(full);
        assert_string_equal(familiar, cases[i].familiar);
        _free_ char *again = NULL;
        assert_int_equal(reference_normalise(familiar, &again, NULL), 0);
        assert_string_equal(again, full);
    }
}

static void test_refused(void **state)
{
    static const char *const cases[] = {
        "",
        ":",
        "/",
        "a/",
        "/a",
        "a//b",
        "Busybox",
        "a:",
        "a:-t",
        "a:.t",
        "a@",
        "a@sha256:",
        "a" DIGEST "0",
        "a:b:c",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        "a b",
        "a\nb",
        "a/../b",
        "../a",
        "./a",
        HEX64,
        "h:x/a",
        "-h.x/a",
        "h-.x/a",
        "h.x:/a",
        "[::1/a",
        "[]/a",
        "[::1]x/a",
        "a:t/b",
        "a\x80",
        "h.x/A",
        "http://h/a",
        "a@md5:0123456789abcdef0123456789abcdef",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct reference r = {0};
        struct err e = ERR_INIT;
        if (reference_parse(cases[i], &r, &e) == 0)
            fail_msg("accepted: %s", cases[i]);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(str_after_prefix(e.msg, "invalid reference "));
        assert_null(r.path);
    }
}

static void test_limits(void **state)
{
    char name[REFERENCE_STR_MAX + 2];
    _cleanup_(reference_done) struct reference r = {0};

    /* "docker.io/library/" and 237 more are 255. */
    memset(name, 'a', sizeof(name));
    name[237] = 0;
    assert_int_equal(reference_parse(name, &r, NULL), 0);
    name[237] = 'a';
    name[238] = 0;
    assert_true(reference_parse(name, &r, NULL) < 0);
    name[238] = 'a';
    name[sizeof(name) - 1] = 0;
    assert_true(reference_parse(name, &r, NULL) < 0);
    name[1] = ':';
    name[2 + REFERENCE_TAG_MAX] = 0;
    reference_done(&r);
    assert_int_equal(reference_parse(name, &r, NULL), 0);
    assert_int_equal(strlen(r.tag), REFERENCE_TAG_MAX);
    name[2 + REFERENCE_TAG_MAX] = 'a';
    name[3 + REFERENCE_TAG_MAX] = 0;
    struct reference other = {0};
    assert_true(reference_parse(name, &other, NULL) < 0);
}

static void test_storable(void **state)
{
    assert_true(reference_name_is_storable("docker.io/library/busybox:latest"));
    assert_true(reference_name_is_storable("Anything At All"));
    assert_false(reference_name_is_storable(""));
    assert_false(reference_name_is_storable(NULL));
    assert_false(reference_name_is_storable("a\nb"));
    assert_false(reference_name_is_storable("a\x7f"));
    assert_false(reference_name_is_storable("a\xff"));
    _free_ char *other = reference_familiar("Anything At All");
    assert_string_equal(other, "Anything At All");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalise),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_storable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

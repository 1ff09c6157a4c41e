/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <stdio.h>

#include "oci/digest.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_valid(void **state)
{
    enum digest_algorithm a;
    const char *hex;

    assert_true(digest_is_valid("sha256:" HEX64));
    assert_true(digest_is_valid("sha512:" HEX64 HEX64));
    assert_int_equal(digest_split("sha256:" HEX64, &a, &hex), 0);
    assert_int_equal(a, DIGEST_SHA256);
    assert_string_equal(hex, HEX64);
    assert_int_equal(digest_split("sha512:" HEX64 HEX64, &a, NULL), 0);
    assert_int_equal(a, DIGEST_SHA512);
}

static void test_problems(void **state)
{
    static const struct {
        const char *digest, *problem;
    } cases[] = {
        {NULL, "invalid checksum digest format"},
        {"", "invalid checksum digest format"},
        {":", "invalid checksum digest format"},
        {"sha256:", "invalid checksum digest format"},
        {":" HEX64, "invalid checksum digest format"},
        {HEX64, "invalid checksum digest format"},
        {"sha256:abc", "invalid checksum digest length"},
        {"sha256:" HEX64 "0", "invalid checksum digest length"},
        {"sha512:" HEX64, "invalid checksum digest length"},
        {"sha256:0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
         "invalid checksum digest format"},
        {"sha256:../../../../../../../../../../../../../../../../../../../../etc/",
         "invalid checksum digest format"},
        {"SHA256:" HEX64, "invalid checksum digest format"},
        {"md5:0123456789abcdef0123456789abcdef", "unsupported digest algorithm"},
        {"sha256+b64:abcDEF=_-", "unsupported digest algorithm"},
        {"sha256+:abc", "invalid checksum digest format"},
        {"foo:a/b", "invalid checksum digest format"},
        {"sha256/x:abc", "invalid checksum digest format"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *problem = digest_problem(cases[i].digest);
        assert_non_null(problem);
        assert_string_equal(problem, cases[i].problem);
        assert_int_equal(digest_split(cases[i].digest, NULL, NULL), -EINVAL);
    }
}

static void test_sentence(void **state)
{
    struct err e = ERR_INIT;

    assert_int_equal(digest_validate("sha256:" HEX64, &e), 0);
    assert_true(digest_validate("sha256:x\n", &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_string_equal(e.msg, "\"sha256:x\\n\" failed validation");
}

static void test_format(void **state)
{
    char out[DIGEST_STR_MAX];
    uint8_t hash[DIGEST_BYTES_MAX];

    for (size_t i = 0; i < sizeof(hash); i++)
        hash[i] = (uint8_t)(i * 3);
    for (int a = DIGEST_SHA256; a <= DIGEST_SHA512; a++) {
        digest_format((enum digest_algorithm)a, hash, out);
        assert_true(digest_is_valid(out));
        assert_int_equal(strlen(out), 7 + 2 * digest_algorithm_bytes((enum digest_algorithm)a));
    }
    assert_memory_equal(out, "sha512:000306090c", 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_problems),
        cmocka_unit_test(test_sentence),
        cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

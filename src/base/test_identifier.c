/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/identifier.h"
#include "base/str.h"

#define PATTERN "^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$"

static void accepts_names(void **state)
{
    static const char *const good[] = {"a", "0", "k8s.io", "a_b-c.d", "A1-2", "default"};
    char longest[IDENTIFIER_MAX + 2];
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(identifier_is_valid(good[i]));
        assert_int_equal(identifier_validate(good[i], &e), 0);
    }
    memset(longest, 'a', sizeof(longest));
    longest[IDENTIFIER_MAX] = '\0';
    assert_true(identifier_is_valid(longest));
    longest[IDENTIFIER_MAX] = 'a';
    longest[IDENTIFIER_MAX + 1] = '\0';
    assert_false(identifier_is_valid(longest));
}

static void refuses_in_known_words(void **state)
{
    static const char *const bad[] = {".",   "..",  "a..b", "-a", "a-",  "a/b",
                                      "a b", "a\n", "é",    "_",  "a._b"};
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(identifier_is_valid(bad[i]));
    assert_false(identifier_is_valid(NULL));
    assert_true(identifier_validate("a b", &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_string_equal(e.msg, "identifier \"a b\" must match " PATTERN ": invalid argument");
    assert_true(identifier_validate("", &e) < 0);
    assert_string_equal(e.msg, "identifier must not be empty: invalid argument");
    assert_true(identifier_validate(NULL, &e) < 0);
}

static void long_ones_keep_the_end_of_the_sentence(void **state)
{
    static char name[10001];
    struct err e = ERR_INIT;

    memset(name, 'x', 77);
    assert_true(identifier_validate(name, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    _free_ char *expected = str_printf(
        "identifier \"%s\" greater than maximum length (76 characters): invalid argument", name);
    assert_string_equal(e.msg, expected);
    memset(name, '\x01', sizeof(name) - 1);
    assert_true(identifier_validate(name, &e) < 0);
    assert_true(str_has_suffix(
        e.msg, "\"... greater than maximum length (76 characters): invalid argument"));
}

static void labels_are_bounded(void **state)
{
    static char value[LABEL_MAX + 1];
    struct err e = ERR_INIT;

    memset(value, 'v', LABEL_MAX - 3);
    assert_int_equal(label_validate("key", value, &e), 0);
    value[LABEL_MAX - 3] = 'v';
    assert_true(label_validate("key", value, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_string_equal(e.msg, "label key and value length (4097 bytes) greater than maximum size "
                               "(4096 bytes), key: key: invalid argument");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_names),
        cmocka_unit_test(refuses_in_known_words),
        cmocka_unit_test(long_ones_keep_the_end_of_the_sentence),
        cmocka_unit_test(labels_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

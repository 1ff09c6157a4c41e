/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/err.h"
#include "base/str.h"

static void sets_and_wraps(void **state)
{
    struct err e = ERR_INIT;

    assert_int_equal(err_set(&e, ERR_NOT_FOUND, "container \"%s\": not found", "x"), ERR_RETURN);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(err_wrap(&e, "start task %d", 1), ERR_RETURN);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_string_equal(e.msg, "start task 1: container \"x\": not found");
    err_set(&e, ERR_INTERNAL, "again: %s", e.msg);
    assert_string_equal(e.msg, "again: start task 1: container \"x\": not found");

    assert_int_equal(err_errno(&e, -ENOENT, "open %s", "/x"), -ENOENT);
    assert_int_equal(e.code, ERR_UNKNOWN);
    assert_int_equal(e.errnum, ENOENT);
    assert_string_equal(e.msg, "open /x: no such file or directory");
    assert_int_equal(err_oom(&e), -ENOMEM);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    assert_string_equal(e.msg, "out of memory");
    err_clear(&e);
    assert_int_equal(e.code, ERR_OK);
    assert_string_equal(e.msg, "");
}

static void accepts_null(void **state)
{
    assert_int_equal(err_set(NULL, ERR_INTERNAL, "x"), ERR_RETURN);
    assert_int_equal(err_wrap(NULL, "x"), ERR_RETURN);
    assert_int_equal(err_errno(NULL, -EIO, "x"), -EIO);
    assert_int_equal(err_oom(NULL), -ENOMEM);
    err_clear(NULL);
}

static void is_bounded(void **state)
{
    struct err e = ERR_INIT;
    char longer[3 * ERR_MSG_MAX];

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    err_set(&e, ERR_INTERNAL, "%s", longer);
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    assert_true(str_has_suffix(e.msg, "xxx..."));
    err_wrap(&e, "one more");
    assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
    assert_true(str_has_suffix(e.msg, "xxx..."));

    /* A cut does not split a character, wherever it falls. */
    for (size_t shift = 0; shift < 3; shift++) {
        memset(longer, 'x', shift);
        for (size_t i = shift; i + 3 < sizeof(longer); i += 3)
            memcpy(longer + i, "€", 3);
        err_set(&e, ERR_INTERNAL, "%s", longer);
        assert_true(str_is_utf8(e.msg, strlen(e.msg)));
        assert_true(str_has_suffix(e.msg, "..."));
    }

    memset(longer, 'x', ERR_MSG_MAX - 1);
    longer[ERR_MSG_MAX - 1] = '\0';
    err_set(&e, ERR_INTERNAL, "%s", longer);
    assert_string_equal(e.msg, longer);
}

static void is_one_line(void **state)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_NOT_FOUND, "container \"%s\"", "a\nb\x1b[1m\x7f\t€");
    assert_string_equal(e.msg, "container \"a b?[1m? €\"");
    err_wrap(&e, "get\r");
    assert_string_equal(e.msg, "get : container \"a b?[1m? €\"");
}

static void names_codes_and_numbers(void **state)
{
    assert_string_equal(err_code_name(ERR_OK), "OK");
    assert_string_equal(err_code_name(ERR_NOT_FOUND), "NotFound");
    assert_string_equal(err_code_name(ERR_UNAUTHENTICATED), "Unauthenticated");
    assert_string_equal(err_code_name((enum err_code)17), "Unknown");
    assert_string_equal(err_code_name((enum err_code) - 1), "Unknown");

    for (int i = 1; i <= 133; i++) {
        char text[128];
        if (i == 41 || i == 58)
            continue;
        snprintf(text, sizeof(text), "%s", strerror(i));
        assert_int_equal(strcasecmp(err_strerror(i), text), 0);
        assert_ptr_equal(err_strerror(-i), err_strerror(i));
    }
    assert_string_equal(err_strerror(ENOENT), "no such file or directory");
    assert_string_equal(err_strerror(0), "unknown error");
    assert_string_equal(err_strerror(134), "unknown error");
    assert_string_equal(err_strerror(INT32_MIN), "unknown error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_wraps),
        cmocka_unit_test(accepts_null),
        cmocka_unit_test(is_bounded),
        cmocka_unit_test(is_one_line),
        cmocka_unit_test(names_codes_and_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/status.h"

static void errors_travel(_unused_ void **state)
{
    struct err e = ERR_INIT, back = ERR_INIT;
    Pb__Rpc__Status s;

    err_set(&e, ERR_NOT_FOUND, "container \"%s\": not found", "x");
    status_from_err(&e, &s);
    assert_int_equal(s.code, 5);
    assert_int_equal(status_to_err(&s, &back), ERR_RETURN);
    assert_int_equal(back.code, ERR_NOT_FOUND);
    assert_string_equal(back.msg, e.msg);

    assert_int_equal(status_to_err(NULL, &back), 0);
    pb__rpc__status__init(&s);
    assert_int_equal(status_to_err(&s, &back), 0);
    s.code = 77;
    assert_int_equal(status_to_err(&s, &back), ERR_RETURN);
    assert_int_equal(back.code, ERR_UNKNOWN);
    /* A failure without a code is still one. */
    err_clear(&e);
    status_from_err(&e, &s);
    assert_int_equal(s.code, ERR_UNKNOWN);
}

static void messages_are_escaped(_unused_ void **state)
{
    static const struct {
        const char *plain, *escaped;
    } cases[] = {
        {"", ""},
        {"plain: text", "plain: text"},
        {"100%", "100%25"},
        {"a\nb\tc", "a%0Ab%09c"},
        {"h\xc3\xa9", "h%C3%A9"},
        {"~ ", "~ "},
    };
    char out[64];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t n = status_message_encode(cases[i].plain, out, sizeof(out));
        assert_int_equal(n, strlen(cases[i].escaped));
        assert_string_equal(out, cases[i].escaped);
        status_message_decode(out);
        assert_string_equal(out, cases[i].plain);
    }
    assert_int_equal(status_message_encode("ab\n", out, 5), 2); /* no half of an escape */
    assert_string_equal(out, "ab");
    assert_int_equal(status_message_encode("ab\n", out, 6), 5);
    assert_int_equal(status_message_encode("ab", out, 1), 0);
    assert_string_equal(out, "");
    assert_int_equal(status_message_encode("ab", out, 0), 0);

    char broken[] = "100% %zz %4 %00 %e2%82%ac%";
    status_message_decode(broken);
    assert_string_equal(broken, "100% %zz %4 %00 \xe2\x82\xac%");
}

static void timeouts_are_read(_unused_ void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"1H", 3600000}, {"2M", 120000}, {"3S", 3000},
        {"4m", 4},       {"1u", 1},      {"1001u", 2},
        {"1n", 1},       {"0n", 0},      {"99999999H", UINT64_C(359999996400000)},
    };
    static const char *const bad[] = {"",    "S",   "1",          "1x",  "-1S", "+1S",
                                      "1SS", " 1S", "123456789S", "1 S", "1s"};
    uint64_t ms;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(status_timeout_parse(good[i].text, &ms), 0);
        assert_int_equal(ms, good[i].ms);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(status_timeout_parse(bad[i], &ms), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_travel),
        cmocka_unit_test(messages_are_escaped),
        cmocka_unit_test(timeouts_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

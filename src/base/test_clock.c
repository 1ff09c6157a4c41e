/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"

static void formats_and_parses(void **state)
{
    static const struct {
        int64_t seconds;
        long ns;
        const char *text;
    } cases[] = {
        {0, 0, "1970-01-01T00:00:00Z"},
        {-1, 500000000, "1969-12-31T23:59:59.5Z"},
        {CLOCK_ZERO_SECONDS, 0, "0001-01-01T00:00:00Z"},
        {951782400, 1, "2000-02-29T00:00:00.000000001Z"},
        {1767323045, 678901234, "2026-01-02T03:04:05.678901234Z"},
        {1767323045, 678900000, "2026-01-02T03:04:05.6789Z"},
        {253402300799, 999999999, "9999-12-31T23:59:59.999999999Z"},
        {-62167219200, 0, "0000-01-01T00:00:00Z"},
    };
    char out[CLOCK_RFC3339_MAX];
    struct timespec t;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        t = (struct timespec){.tv_sec = cases[i].seconds, .tv_nsec = cases[i].ns};
        clock_rfc3339(t, out);
        assert_string_equal(out, cases[i].text);
        t = (struct timespec){};
        assert_int_equal(clock_parse_rfc3339(cases[i].text, &t), 0);
        assert_int_equal(t.tv_sec, cases[i].seconds);
        assert_int_equal(t.tv_nsec, cases[i].ns);
    }
    clock_rfc3339((struct timespec){.tv_sec = INT64_MAX, .tv_nsec = -1}, out);
    assert_string_equal(out, "9999-12-31T23:59:59Z");
    clock_rfc3339((struct timespec){.tv_sec = INT64_MIN}, out);
    assert_string_equal(out, "0000-01-01T00:00:00Z");
}

static void agrees_with_libc(void **state)
{
    /* A prime step meets every month, weekday and kind of year. */
    for (int64_t s = -62135596800; s < 253402300799; s += 86400 * 17 + 12347) {
        char ours[CLOCK_RFC3339_MAX], theirs[64];
        time_t seconds = (time_t)s;
        struct tm tm;
        gmtime_r(&seconds, &tm);
        snprintf(theirs, sizeof(theirs), "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        clock_rfc3339((struct timespec){.tv_sec = seconds}, ours);
        assert_string_equal(ours, theirs);
    }
}

static void understands_offsets(void **state)
{
    struct timespec t, zulu;

    assert_int_equal(clock_parse_rfc3339("2026-01-02T03:04:05Z", &zulu), 0);
    assert_int_equal(clock_parse_rfc3339("2026-01-02T04:34:05+01:30", &t), 0);
    assert_int_equal(t.tv_sec, zulu.tv_sec);
    assert_int_equal(clock_parse_rfc3339("2026-01-01t19:04:05.0000000009-08:00", &t), 0);
    assert_int_equal(t.tv_sec, zulu.tv_sec);
    assert_int_equal(t.tv_nsec, 0);
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-32T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T00:60:00Z",
        "2026-01-02T00:00:60Z",
        "2026-01-02T00:00:00.Z",
        "2026-01-02T00:00:00+1:00",
        "2026-01-02T00:00:00+24:00",
        "2026-01-02T00:00:00+0100",
        "2026-01-02T00:00:00Zx",
        "26-01-02T00:00:00Z",
        "+026-01-02T00:00:00Z",
    };
    struct timespec t = {.tv_sec = 42};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(clock_parse_rfc3339(bad[i], &t), -EINVAL);
    assert_int_equal(clock_parse_rfc3339(NULL, &t), -EINVAL);
    assert_int_equal(t.tv_sec, 42);
}

static void runs_forward(void **state)
{
    uint64_t us = clock_monotonic_us(), ms = clock_monotonic_ms();

    assert_true(clock_monotonic_us() >= us);
    assert_true(ms >= us / 1000);
    assert_true(clock_realtime().tv_sec > 1700000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_and_parses),  cmocka_unit_test(agrees_with_libc),
        cmocka_unit_test(understands_offsets), cmocka_unit_test(refuses),
        cmocka_unit_test(runs_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>

#include "base/str.h"

#define DAY_SECONDS 86400

uint64_t clock_monotonic_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t clock_monotonic_ms(void)
{
    return clock_monotonic_us() / 1000;
}

struct timespec clock_realtime(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return t;
}

/*
 * Dates by arithmetic of the proleptic Gregorian calendar, because gmtime(3) takes a lock and reads
 * time zones. Years are counted from March here, so that the leap day is the last one of a year; an
 * era is the 146097 days after which the calendar repeats.
 */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void date_from_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    days += 719468; /* 1970-01-01, counted from 0000-03-01 */
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t n = days - era * 146097;
    int64_t year_of_era = (n - n / 1460 + n / 36524 - n / 146096) / 365;
    int64_t day_of_year = n - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t m = (5 * day_of_year + 2) / 153;

    *day = (unsigned)(day_of_year - (153 * m + 2) / 5 + 1);
    *month = (unsigned)(m < 10 ? m + 3 : m - 9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

void clock_rfc3339(struct timespec t, char out[CLOCK_RFC3339_MAX])
{
    /* The years that four digits can tell. */
    const int64_t first = days_from_date(0, 1, 1) * DAY_SECONDS;
    const int64_t last = days_from_date(10000, 1, 1) * DAY_SECONDS - 1;
    int64_t seconds = MIN_OF(MAX_OF((int64_t)t.tv_sec, first), last), year;
    unsigned month, day;

    int64_t days = seconds / DAY_SECONDS, rest = seconds % DAY_SECONDS;
    if (rest < 0) {
        rest += DAY_SECONDS;
        days--;
    }
    date_from_days(days, &year, &month, &day);
    int n = snprintf(out, CLOCK_RFC3339_MAX, "%04u-%02u-%02uT%02u:%02u:%02u",
                     (unsigned)year % 10000u, month % 100u, day % 100u, (unsigned)rest / 3600u,
                     (unsigned)rest / 60u % 60u, (unsigned)rest % 60u);
    if (t.tv_nsec > 0 && t.tv_nsec < 1000000000) {
        n += snprintf(out + n, (size_t)(CLOCK_RFC3339_MAX - n), ".%09u", (unsigned)t.tv_nsec);
        while (out[n - 1] == '0')
            n--;
    }
    out[n] = 'Z';
    out[n + 1] = '\0';
}

int clock_days_of_month(int year, int month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return days[month - 1] + (month == 2 && leap);
}

/* ".123" as nanoseconds; digits behind the ninth are dropped. */
static int take_fraction(const char **s, long *ret_ns)
{
    long ns = 0, unit = 100000000;

    if (!str_take_char(s, '.'))
        return 0;
    if (**s < '0' || **s > '9')
        return -EINVAL;
    for (; **s >= '0' && **s <= '9'; (*s)++, unit /= 10)
        ns += unit * (**s - '0');
    *ret_ns = ns;
    return 0;
}

/* "Z" or "+01:00" as seconds east of Greenwich. */
static int take_offset(const char **s, int64_t *ret)
{
    if (str_take_char(s, 'Z') || str_take_char(s, 'z')) {
        *ret = 0;
        return 0;
    }
    int sign = **s == '+' ? 1 : **s == '-' ? -1 : 0;
    if (sign == 0)
        return -EINVAL;
    (*s)++;
    int hours = str_take_digits(s, 2);
    bool colon = hours >= 0 && str_take_char(s, ':');
    int minutes = colon ? str_take_digits(s, 2) : -1;
    if (minutes < 0 || hours > 23 || minutes > 59)
        return -EINVAL;
    *ret = sign * (hours * 3600 + minutes * 60);
    return 0;
}

int clock_parse_rfc3339(const char *s, struct timespec *ret)
{
    int year, month, day, hour, minute, second;
    int64_t offset;
    long ns = 0;

    if (!s)
        return -EINVAL;
    if ((year = str_take_digits(&s, 4)) < 0 || !str_take_char(&s, '-') ||
        (month = str_take_digits(&s, 2)) < 0 || !str_take_char(&s, '-') ||
        (day = str_take_digits(&s, 2)) < 0)
        return -EINVAL;
    if (!str_take_char(&s, 'T') && !str_take_char(&s, 't'))
        return -EINVAL;
    if ((hour = str_take_digits(&s, 2)) < 0 || !str_take_char(&s, ':') ||
        (minute = str_take_digits(&s, 2)) < 0 || !str_take_char(&s, ':') ||
        (second = str_take_digits(&s, 2)) < 0)
        return -EINVAL;
    if (take_fraction(&s, &ns) < 0 || take_offset(&s, &offset) < 0 || *s)
        return -EINVAL;
    if (month < 1 || month > 12 || day < 1 || day > clock_days_of_month(year, month) || hour > 23 ||
        minute > 59 || second > 59)
        return -EINVAL;
    ret->tv_sec = days_from_date(year, (unsigned)month, (unsigned)day) * DAY_SECONDS + hour * 3600 +
                  minute * 60 + second - offset;
    ret->tv_nsec = ns;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <math.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/toml_parser.h"

#define NUMBER_MAX \
    400 /* bytes; more than the longest exact double needs in any sensible notation */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Whether p->s is at a newline, and how long that is. */
static size_t newline_len(const struct toml_parser *p, size_t at)
{
    if (toml_peek(p, at) == '\n')
        return 1;
    return toml_peek(p, at) == '\r' && toml_peek(p, at + 1) == '\n' ? 2 : 0;
}

/* A backslash at the end of a line: it, the newline and all white space behind are skipped. */
static bool skip_line_continuation(struct toml_parser *p)
{
    size_t n = 1, newline;
    bool any = false;

    for (;;) {
        if ((newline = newline_len(p, n))) {
            any = true;
            n += newline;
        } else if (toml_peek(p, n) == ' ' || toml_peek(p, n) == '\t') {
            n++;
        } else {
            break;
        }
    }
    if (any)
        p->s += n;
    return any;
}

/* p->s is at the backslash. */
static int scan_escape(struct toml_parser *p, bool multi_line, struct buf *out)
{
    static const char letters[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
    char c = toml_peek(p, 1), utf8[4];
    const char *found = c ? strchr(letters, c) : NULL;

    if (found) {
        p->s += 2;
        return buf_append(out, &values[found - letters], 1);
    }
    size_t digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
        if (multi_line && skip_line_continuation(p))
            return 0;
        return toml_fail(p, p->s,
                         "unknown escape sequence in a string; write \\\\ for a backslash, or put "
                         "the string in single quotes");
    }
    uint32_t v = 0;
    for (size_t i = 0; i < digits; i++) {
        int d = str_digit(toml_peek(p, 2 + i), 16);
        if (d < 0)
            return toml_fail(p, p->s, "\\%c needs %zu hexadecimal digits", c, digits);
        v = v << 4 | (uint32_t)d;
    }
    if (v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
        return toml_fail(p, p->s, "\\%c%0*X is not a Unicode character", c, (int)digits, v);
    p->s += 2 + digits;
    return buf_append(out, utf8, str_utf8_encode(v, utf8));
}

/* At a quote of a multi-line string: 1 if it closes the string. Up to two quotes may stand right
 * before the three that close it. */
static int scan_quotes(struct toml_parser *p, char quote, struct buf *out)
{
    size_t n = 0;

    while (n < 5 && toml_peek(p, n) == quote)
        n++;
    size_t own = n >= 3 ? n - 3 : n;
    int r = buf_append(out, p->s, own);
    p->s += n;
    return r < 0 ? r : n >= 3;
}

/* The inside of a string up to and with the closing quotes. 1 at the end, else 0 or negative. */
static int scan_string_part(struct toml_parser *p, char quote, bool multi_line, struct buf *out)
{
    char c = toml_peek(p, 0);
    size_t newline = newline_len(p, 0);

    if (c == quote) {
        if (multi_line)
            return scan_quotes(p, quote, out);
        p->s++;
        return 1;
    }
    if (c == '\\' && quote == '"')
        return scan_escape(p, multi_line, out);
    if (newline) {
        if (!multi_line)
            return toml_fail(p, p->s,
                             "a string cannot span lines unless it begins with three quotes");
        p->s += newline;
        return buf_append(out, "\n", 1);
    }
    if (((uint8_t)c < 0x20 && c != '\t') || c == 0x7f)
        return toml_fail(p, p->s, "control character 0x%02x in a string; write it as \\u%04X",
                         (uint8_t)c, (uint8_t)c);
    p->s++;
    return buf_append(out, &c, 1);
}

int toml_scan_string(struct toml_parser *p, bool is_key, char **ret, size_t *ret_len)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(TOML_MAX_BYTES);
    const char *start = p->s;
    char quote = *p->s;
    bool multi_line = toml_peek(p, 1) == quote && toml_peek(p, 2) == quote;
    int r;

    if (multi_line && is_key)
        return toml_fail(p, start, "a key cannot be a multi-line string");
    p->s += multi_line ? 3 : 1;
    if (multi_line)
        p->s += newline_len(p, 0);
    do {
        if (p->s == p->end)
            return toml_fail(p, start, "the string that begins here is not closed");
        r = scan_string_part(p, quote, multi_line, &out);
    } while (r == 0);
    if (r == -ENOMEM)
        return err_oom(p->e);
    if (r < 0)
        return r;
    size_t len = out.len;
    char *s = buf_take_str(&out);
    if (!s)
        return err_oom(p->e);
    *ret = s;
    *ret_len = len;
    return 0;
}

/* Digits of base with single underscores between them, copied without those. Returns how many were
 * read of s, 0 if it does not begin with a digit or an underscore stands where none may. */
static size_t take_digits(const char *s, int base, char **out)
{
    const char *start = s;

    for (;;) {
        if (str_digit(*s, base) < 0)
            return 0;
        while (str_digit(*s, base) >= 0)
            *(*out)++ = *s++;
        if (*s != '_')
            return (size_t)(s - start);
        s++;
    }
}

static int integer_from_digits(const char *digits, int base, bool negative, int64_t *ret)
{
    uint64_t v = 0;

    for (; *digits; digits++)
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)str_digit(*digits, base), &v))
            return -ERANGE;
    if (v > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *ret = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

/* 0x.., 0o.., 0b.. Returns -EINVAL if it is none of them. */
static int integer_with_prefix(const char *token, int64_t *ret)
{
    int base = token[1] == 'x' ? 16 : token[1] == 'o' ? 8 : token[1] == 'b' ? 2 : 0;
    char digits[NUMBER_MAX + 1], *out = digits;

    if (token[0] != '0' || base == 0)
        return -EINVAL;
    size_t n = take_digits(token + 2, base, &out);
    if (n == 0 || token[2 + n])
        return -EINVAL;
    *out = '\0';
    return integer_from_digits(digits, base, false, ret);
}

static double to_double(const char *s)
{
    /* The point is the decimal separator whatever the program's locale is. */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    double v = c ? strtod_l(s, NULL, c) : strtod(s, NULL);

    if (c)
        freelocale(c);
    return v;
}

/* A decimal integer or a float. -EINVAL, -ERANGE. */
static int scan_decimal(const char *token, struct toml_value *v)
{
    char plain[NUMBER_MAX + 4], *out = plain;
    bool negative = *token == '-', is_float = false;
    const char *s = token + (*token == '-' || *token == '+');
    size_t n;

    if (str_eq(s, "inf") || str_eq(s, "nan")) {
        v->type = TOML_FLOAT;
        v->floating = copysign(*s == 'i' ? INFINITY : NAN, negative ? -1.0 : 1.0);
        return 0;
    }
    if (negative)
        *out++ = '-';
    char *digits = out;
    if ((n = take_digits(s, 10, &out)) == 0 || (*s == '0' && n > 1))
        return -EINVAL;
    s += n;
    if (*s == '.') {
        is_float = true;
        *out++ = *s++;
        if ((n = take_digits(s, 10, &out)) == 0)
            return -EINVAL;
        s += n;
    }
    if (*s == 'e' || *s == 'E') {
        is_float = true;
        *out++ = *s++;
        if (*s == '-' || *s == '+')
            *out++ = *s++;
        if ((n = take_digits(s, 10, &out)) == 0)
            return -EINVAL;
        s += n;
    }
    if (*s)
        return -EINVAL;
    *out = '\0';
    if (is_float) {
        v->type = TOML_FLOAT;
        v->floating = to_double(plain);
        return 0;
    }
    v->type = TOML_INTEGER;
    return integer_from_digits(digits, 10, negative, &v->integer);
}

static bool take_date(const char **s, struct toml_datetime *d)
{
    if ((d->year = str_take_digits(s, 4)) < 0 || !str_take_char(s, '-') ||
        (d->month = str_take_digits(s, 2)) < 1 || d->month > 12 || !str_take_char(s, '-') ||
        (d->day = str_take_digits(s, 2)) < 1)
        return false;
    return d->day <= clock_days_of_month(d->year, d->month);
}

static bool take_time(const char **s, struct toml_datetime *d)
{
    int unit = 100000000;

    if ((d->hour = str_take_digits(s, 2)) < 0 || d->hour > 23 || !str_take_char(s, ':') ||
        (d->minute = str_take_digits(s, 2)) < 0 || d->minute > 59 || !str_take_char(s, ':') ||
        (d->second = str_take_digits(s, 2)) < 0 || d->second > 60)
        return false;
    if (!str_take_char(s, '.'))
        return true;
    if (!is_digit(**s))
        return false;
    for (; is_digit(**s); (*s)++, unit /= 10)
        d->nanosecond += unit * (**s - '0');
    return true;
}

static bool take_offset(const char **s, struct toml_datetime *d)
{
    if (str_take_char(s, 'Z') || str_take_char(s, 'z'))
        return true;
    bool west = **s == '-';
    if (!str_take_char(s, west ? '-' : '+'))
        return false;
    int hours = str_take_digits(s, 2);
    if (hours < 0 || hours > 23 || !str_take_char(s, ':'))
        return false;
    int minutes = str_take_digits(s, 2);
    if (minutes < 0 || minutes > 59)
        return false;
    d->offset_minutes = (hours * 60 + minutes) * (west ? -1 : 1);
    return true;
}

static bool scan_datetime(const char *token, struct toml_value *v)
{
    struct toml_datetime *d = &v->datetime;

    *d = (struct toml_datetime){};
    if (token[2] == ':') {
        v->type = TOML_LOCAL_TIME;
        return take_time(&token, d) && !*token;
    }
    v->type = TOML_LOCAL_DATE;
    if (!take_date(&token, d))
        return false;
    if (!*token)
        return true;
    v->type = TOML_LOCAL_DATETIME;
    if ((!str_take_char(&token, 'T') && !str_take_char(&token, 't') &&
         !str_take_char(&token, ' ')) ||
        !take_time(&token, d))
        return false;
    if (!*token)
        return true;
    v->type = TOML_OFFSET_DATETIME;
    return take_offset(&token, d) && !*token;
}

static bool is_token_char(char c)
{
    return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("+-_.:", c));
}

static bool looks_like_date(const char *s, size_t n)
{
    return n >= 5 && is_digit(s[0]) && is_digit(s[1]) && is_digit(s[2]) && is_digit(s[3]) &&
           s[4] == '-';
}

/* The length of what could be a number, date or boolean at p->s. */
static size_t token_len(const struct toml_parser *p)
{
    size_t n = 0;

    while (is_token_char(toml_peek(p, n)))
        n++;
    /* A space may stand between date and time. */
    if (n == 10 && looks_like_date(p->s, n) && toml_peek(p, n) == ' ' &&
        is_digit(toml_peek(p, n + 1)))
        for (n++; is_token_char(toml_peek(p, n));)
            n++;
    return n;
}

int toml_scan_scalar(struct toml_parser *p, struct toml_value *v)
{
    char token[NUMBER_MAX + 1], seen[16];
    size_t n = token_len(p);
    int r;

    if (n == 0)
        return toml_fail(p, p->s, "expected a value, found %s", toml_seen(p, seen));
    if (n > NUMBER_MAX)
        return toml_fail(p, p->s, "a number of more than %d characters", NUMBER_MAX);
    memcpy(token, p->s, n);
    token[n] = '\0';
    if (str_eq(token, "true") || str_eq(token, "false")) {
        v->type = TOML_BOOL;
        v->boolean = *token == 't';
    } else if (looks_like_date(token, n) || (n > 2 && is_digit(token[0]) && token[2] == ':')) {
        if (!scan_datetime(token, v))
            return toml_fail(p, p->s, "%.40s is not a date or time", token);
    } else {
        r = integer_with_prefix(token, &v->integer);
        v->type = TOML_INTEGER;
        if (r == -EINVAL)
            r = scan_decimal(token, v);
        if (r == -ERANGE)
            return toml_fail(p, p->s, "%.40s does not fit in 64 bits", token);
        if (r < 0)
            return toml_fail(p, p->s, "%.40s is not a value; strings need quotes", token);
    }
    p->s += n;
    return 0;
}

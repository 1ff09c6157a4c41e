/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"

#include <limits.h>
#include <stdio.h>

#include "base/buf.h"

bool str_eq(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

const char *str_after_prefix(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

bool str_has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return m <= n && memcmp(s + n - m, suffix, m) == 0;
}

int str_dup_given(const char *s, char **ret)
{
    if (str_empty(s))
        return 0;
    char *copy = strdup(s);
    if (!copy)
        return -ENOMEM;
    *ret = copy;
    return 0;
}

char *str_vprintf(const char *format, va_list args)
{
    va_list again;
    char *s = NULL;

    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && (s = malloc((size_t)n + 1)))
        vsnprintf(s, (size_t)n + 1, format, again);
    va_end(again);
    return s;
}

char *str_printf(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *s = str_vprintf(format, args);
    va_end(args);
    return s;
}

/* Reads decimal digits up to the first other character. */
static int read_digits(const char *s, uint64_t *ret, const char **ret_end)
{
    uint64_t v = 0;

    if (*s < '0' || *s > '9')
        return -EINVAL;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return -ERANGE;
    }
    *ret = v;
    *ret_end = s;
    return 0;
}

int str_to_u64(const char *s, uint64_t *ret)
{
    const char *end;
    uint64_t v;

    if (!s || strspn(s, "0123456789") != strlen(s))
        return -EINVAL;
    int r = read_digits(s, &v, &end);
    if (r < 0)
        return r;
    *ret = v;
    return 0;
}

int str_to_i64(const char *s, int64_t *ret)
{
    uint64_t v;

    if (!s)
        return -EINVAL;
    bool negative = *s == '-';
    int r = str_to_u64(s + negative, &v);
    if (r < 0)
        return r;
    if (v > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *ret = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

int str_to_u32(const char *s, uint32_t *ret)
{
    uint64_t v;
    int r = str_to_u64(s, &v);

    if (r < 0)
        return r;
    if (v > UINT32_MAX)
        return -ERANGE;
    *ret = (uint32_t)v;
    return 0;
}

int str_to_size(const char *s, uint64_t *ret_bytes)
{
    static const char units[] = "bkmgtp";
    const char *end, *unit;
    uint64_t v;

    if (!s)
        return -EINVAL;
    int r = read_digits(s, &v, &end);
    if (r < 0)
        return r;
    if (*end) {
        char c = (char)(*end | 0x20);
        unit = memchr(units, c, sizeof(units) - 1);
        if (!unit)
            return -EINVAL;
        end++;
        if (c != 'b' && (*end | 0x20) == 'i' && (end[1] | 0x20) == 'b')
            end += 2;
        else if (c != 'b' && (*end | 0x20) == 'b')
            end++;
        if (*end)
            return -EINVAL;
        if (__builtin_mul_overflow(v, UINT64_C(1) << (10 * (unit - units)), &v))
            return -ERANGE;
    }
    *ret_bytes = v;
    return 0;
}

int str_digit(char c, int base)
{
    int v = c >= '0' && c <= '9'                     ? c - '0'
            : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                     : INT_MAX;

    return v < base ? v : -1;
}

int str_take_digits(const char **s, int n)
{
    int v = 0;

    for (; n > 0; n--, (*s)++) {
        int digit = str_digit(**s, 10);
        if (digit < 0)
            return -1;
        v = v * 10 + digit;
    }
    return v;
}

bool str_take_char(const char **s, char c)
{
    if (**s != c)
        return false;
    (*s)++;
    return true;
}

void str_hex(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[16] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

int str_utf8_decode(const char *s, size_t n, uint32_t *ret)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = (const uint8_t *)s;
    uint32_t c;
    size_t len;

    if (n == 0)
        return -EILSEQ;
    if (p[0] < 0x80) {
        *ret = p[0];
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] < 0xe0)
        len = 2;
    else if (p[0] >= 0xe0 && p[0] < 0xf0)
        len = 3;
    else if (p[0] >= 0xf0 && p[0] < 0xf5)
        len = 4;
    else
        return -EILSEQ;
    if (n < len)
        return -EILSEQ;
    c = p[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -EILSEQ;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (c < smallest[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return -EILSEQ;
    *ret = c;
    return (int)len;
}

size_t str_utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool str_is_utf8(const char *s, size_t n)
{
    uint32_t c;

    while (n) {
        int len = str_utf8_decode(s, n, &c);
        if (len < 0 || c == 0)
            return false;
        s += len;
        n -= (size_t)len;
    }
    return true;
}

bool str_is_printable(uint32_t c)
{
    /* Ranges of separators, format characters, controls, surrogates, private use and
     * non-characters (Unicode categories Z*, C*), where they are common enough to matter. */
    static const struct {
        uint32_t first, last;
    } hidden[] = {
        {0x0, 0x1f},           {0x7f, 0xa0},     {0xad, 0xad},     {0x61c, 0x61c},
        {0x1680, 0x1680},      {0x180e, 0x180e}, {0x2000, 0x200f}, {0x2028, 0x202f},
        {0x205f, 0x206f},      {0x3000, 0x3000}, {0xd800, 0xf8ff}, {0xfdd0, 0xfdef},
        {0xfeff, 0xfeff},      {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0xe00ff},
        {0xe01f0, 0xffffffff},
    };

    for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
        if (c >= hidden[i].first && c <= hidden[i].last)
            return false;
    return true;
}

/* Appends one character or undecodable byte of a quoted string. Returns the bytes of s used, or
 * negative errno. */
static int quote_one(struct buf *b, const char *s, size_t n)
{
    static const char plain[] = "\a\b\f\n\r\t\v\\\"", letters[] = "abfnrtv\\\"";
    uint32_t c;
    int len = str_utf8_decode(s, n, &c), r;
    const char *p;

    if (len < 0) {
        r = buf_printf(b, "\\x%02x", (uint8_t)*s);
        len = 1;
    } else if (c && c < 0x80 && (p = strchr(plain, (int)c))) {
        r = buf_printf(b, "\\%c", letters[p - plain]);
    } else if (str_is_printable(c)) {
        r = buf_append(b, s, (size_t)len);
    } else if (c < 0x80) {
        r = buf_printf(b, "\\x%02x", c);
    } else {
        r = buf_printf(b, c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    return r < 0 ? r : len;
}

char *str_quote(const char *s)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(SIZE_MAX / 2);
    size_t n = strlen(s);

    if (buf_append(&b, "\"", 1) < 0)
        return NULL;
    while (n) {
        int used = quote_one(&b, s, n);
        if (used < 0)
            return NULL;
        s += used;
        n -= (size_t)used;
    }
    if (buf_append(&b, "\"", 1) < 0)
        return NULL;
    return buf_take_str(&b);
}

void strv_free(char **v)
{
    if (!v)
        return;
    for (char **p = v; *p; p++)
        free(*p);
    free(v);
}

size_t strv_len(char *const *v)
{
    size_t n = 0;

    while (v && v[n])
        n++;
    return n;
}

int strv_push(char ***v, const char *s)
{
    size_t n = strv_len(*v);
    _free_ char *copy = strdup(s);

    if (!copy)
        return -ENOMEM;
    char **grown = reallocarray(*v, n + 2, sizeof(char *));
    if (!grown)
        return -ENOMEM;
    *v = grown;
    (*v)[n] = TAKE(copy);
    (*v)[n + 1] = NULL;
    return 0;
}

char **strv_dup(char *const *v)
{
    size_t n = strv_len(v);
    char **copy = calloc(n + 1, sizeof(char *));

    if (!copy)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (!(copy[i] = strdup(v[i]))) {
            strv_free(copy);
            return NULL;
        }
    }
    return copy;
}

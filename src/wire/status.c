/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/status.h"

#include "base/str.h"

void status_from_err(const struct err *e, Pb__Rpc__Status *s)
{
    pb__rpc__status__init(s);
    /* A failure that names no code must not read as success. */
    s->code = e->code == ERR_OK ? ERR_UNKNOWN : (int32_t)e->code;
    s->message = (char *)e->msg;
}

int status_to_err(const Pb__Rpc__Status *s, struct err *e)
{
    if (!s || s->code == ERR_OK)
        return 0;
    bool known = s->code > ERR_OK && s->code <= ERR_UNAUTHENTICATED;
    return err_set(e, known ? (enum err_code)s->code : ERR_UNKNOWN, "%s", str_or_empty(s->message));
}

size_t status_message_encode(const char *message, char *out, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;

    if (size == 0)
        return 0;
    for (const char *s = message; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            if (n + 1 >= size)
                break;
            out[n++] = (char)c;
        } else {
            if (n + 3 >= size)
                break;
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    out[n] = 0;
    return n;
}

void status_message_decode(char *message)
{
    char *out = message;

    for (const char *s = message; *s;) {
        int high = s[0] == '%' ? str_digit(s[1], 16) : -1;
        int low = high >= 0 ? str_digit(s[2], 16) : -1;
        /* An escaped NUL stays as it is: it would end the sentence. */
        if (low >= 0 && (high | low)) {
            *out++ = (char)(high << 4 | low);
            s += 3;
        } else {
            *out++ = *s++;
        }
    }
    *out = 0;
}

int status_timeout_parse(const char *value, uint64_t *ret_ms)
{
    uint64_t n = 0;
    size_t digits = 0;

    while (value[digits] >= '0' && value[digits] <= '9') {
        if (digits == 8)
            return -EINVAL;
        n = n * 10 + (uint64_t)(value[digits] - '0');
        digits++;
    }
    if (digits == 0 || !value[digits] || value[digits + 1])
        return -EINVAL;
    switch (value[digits]) {
    case 'H':
        n *= 3600 * 1000;
        break;
    case 'M':
        n *= 60 * 1000;
        break;
    case 'S':
        n *= 1000;
        break;
    case 'm':
        break;
    case 'u':
        n = (n + 999) / 1000;
        break;
    case 'n':
        n = (n + 999999) / 1000000;
        break;
    default:
        return -EINVAL;
    }
    *ret_ms = n;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/str.h"

/* A process has one log; threads read these without a lock. */
static atomic_int log_fd = STDERR_FILENO;
static atomic_int log_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

void log_set_fd(int fd)
{
    atomic_store_explicit(&log_fd, fd, memory_order_relaxed);
}

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_TRACE:
        return "trace";
    case LOG_DEBUG:
        return "debug";
    case LOG_INFO:
        return "info";
    case LOG_WARN:
        return "warning";
    case LOG_ERROR:
        return "error";
    case LOG_FATAL:
        return "fatal";
    }
    return "info";
}

int log_level_parse(const char *name, enum log_level *ret)
{
    if (!name)
        return -EINVAL;
    if (str_eq(name, "warn")) {
        *ret = LOG_WARN;
        return 0;
    }
    if (str_eq(name, "panic")) {
        *ret = LOG_FATAL;
        return 0;
    }
    for (enum log_level level = LOG_TRACE; level <= LOG_FATAL; level++) {
        if (str_eq(name, level_name(level))) {
            *ret = level;
            return 0;
        }
    }
    return -EINVAL;
}

/* How the first character of n bytes is written: 0 as it is, else the letter behind the backslash,
 * 'x' for each byte in hex. */
static char escape_of(const char *s, size_t n, int *ret_len)
{
    uint32_t c;
    int len = str_utf8_decode(s, n, &c);

    *ret_len = len < 0 ? 1 : len;
    if (len < 0)
        return 'x';
    switch (c) {
    case '\n':
        return 'n';
    case '\t':
        return 't';
    case '\r':
        return 'r';
    case '"':
    case '\\':
        return (char)c;
    }
    /* C0, DEL and C1 steer terminals. */
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) ? 'x' : 0;
}

/*
 * Escapes the n bytes at s where they lie, in `room` bytes. Returns the length afterwards; what
 * does not fit is cut.
 */
static size_t escape_in_place(char *s, size_t n, size_t room)
{
    static const char digits[16] = "0123456789abcdef";
    size_t fits = 0, grown = 0;
    int len;

    while (fits < n) {
        char how = escape_of(s + fits, n - fits, &len);
        size_t more = how == 0 ? (size_t)len : how == 'x' ? 4 * (size_t)len : 2;
        if (grown + more > room)
            break;
        grown += more;
        fits += (size_t)len;
    }
    if (grown == fits)
        return grown;
    /* From the end backwards, so that nothing is overwritten before it was moved. */
    for (size_t from = fits, to = grown; from > 0;) {
        size_t start = from - 1;
        uint32_t c;
        while (start > 0 && from - start < 4 && ((uint8_t)s[start] & 0xc0) == 0x80)
            start--;
        if (str_utf8_decode(s + start, from - start, &c) != (int)(from - start))
            start = from - 1;
        char how = escape_of(s + start, from - start, &len);
        for (; from > start; from--) {
            uint8_t byte = (uint8_t)s[from - 1];
            if (how == 0) {
                s[--to] = (char)byte;
            } else if (how == 'x') {
                s[--to] = digits[byte & 15];
                s[--to] = digits[byte >> 4];
                s[--to] = 'x';
                s[--to] = '\\';
            } else {
                s[--to] = how;
                s[--to] = '\\';
            }
        }
    }
    return grown;
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[LOG_LINE_MAX], when[CLOCK_RFC3339_MAX];
    int saved = errno;
    va_list args;

    if (level < log_get_level())
        return;
    clock_rfc3339(clock_realtime(), when);
    size_t n = (size_t)snprintf(line, sizeof(line), "time=\"%s\" level=%s msg=\"", when,
                                level_name(level));
    size_t room = sizeof(line) - n - 2; /* for the quote and the newline */
    errno = saved;                      /* for %m */
    va_start(args, format);
    int len = vsnprintf(line + n, room, format, args);
    va_end(args);
    if (len > 0)
        n += escape_in_place(line + n, MIN_OF((size_t)len, room - 1), room);
    line[n++] = '"';
    line[n++] = '\n';
    while (write(atomic_load_explicit(&log_fd, memory_order_relaxed), line, n) < 0 &&
           errno == EINTR)
        ;
    errno = saved;
}

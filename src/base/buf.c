/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdio.h>

#define BUF_FIRST_BYTES 256

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.max = b->max};
}

/* Moves the readable bytes into a larger allocation with room for n more. */
static int buf_grow(struct buf *b, size_t n)
{
    size_t need = b->len + n;
    size_t size = b->allocated < BUF_FIRST_BYTES ? BUF_FIRST_BYTES : b->allocated;

    while (size < need && size <= SIZE_MAX / 2)
        size *= 2;
    if (size < need || (size > b->max && need <= b->max))
        size = MAX_OF(need, MIN_OF(b->max, size));
    uint8_t *data = malloc(size);
    if (!data)
        return -ENOMEM;
    if (b->len)
        memcpy(data, b->data + b->start, b->len);
    free(b->data);
    b->data = data;
    b->start = 0;
    b->allocated = size;
    return 0;
}

int buf_reserve(struct buf *b, size_t n, uint8_t **ret)
{
    if (b->len > b->max || n > b->max - b->len)
        return -ENOBUFS;
    if (!b->data || n > b->allocated - b->start - b->len) {
        /* Moving is cheaper than growing once at least half of the allocation is consumed. */
        if (b->data && n <= b->allocated - b->len && b->start >= b->allocated / 2) {
            memmove(b->data, b->data + b->start, b->len);
            b->start = 0;
        } else {
            int r = buf_grow(b, n);
            if (r < 0)
                return r;
        }
    }
    *ret = b->data + b->start + b->len;
    return 0;
}

void buf_commit(struct buf *b, size_t n)
{
    b->len += n;
}

int buf_append(struct buf *b, const void *bytes, size_t n)
{
    uint8_t *p;

    if (n == 0)
        return 0;
    int r = buf_reserve(b, n, &p);
    if (r < 0)
        return r;
    memcpy(p, bytes, n);
    buf_commit(b, n);
    return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_vprintf(struct buf *b, const char *format, va_list args)
{
    size_t room = b->data ? b->allocated - b->start - b->len : 0;
    va_list again;
    uint8_t *p;

    va_copy(again, args);
    int n = vsnprintf(room ? (char *)(b->data + b->start + b->len) : NULL, room, format, args);
    int r = n < 0 ? -EINVAL : 0;
    if (r == 0 && ((size_t)n >= room || (size_t)n > b->max - MIN_OF(b->len, b->max))) {
        /* vsnprintf writes a NUL behind the text, which need not fit below the cap. */
        size_t max = b->max;
        b->max += max < SIZE_MAX;
        r = buf_reserve(b, (size_t)n + 1, &p);
        b->max = max;
        if (r == 0)
            vsnprintf((char *)p, (size_t)n + 1, format, again);
    }
    va_end(again);
    if (r == 0)
        buf_commit(b, (size_t)n);
    return r;
}

int buf_printf(struct buf *b, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int r = buf_vprintf(b, format, args);
    va_end(args);
    return r;
}

void buf_consume(struct buf *b, size_t n)
{
    n = MIN_OF(n, b->len);
    b->start += n;
    b->len -= n;
    if (b->len == 0)
        b->start = 0;
}

void buf_clear(struct buf *b)
{
    b->start = b->len = 0;
}

void buf_trim(struct buf *b)
{
    if (b->len == 0)
        buf_done(b);
}

char *buf_take_str(struct buf *b)
{
    if (b->data && b->start)
        memmove(b->data, b->data + b->start, b->len);
    char *s = realloc(b->data, b->len + 1);
    b->start = 0;
    if (!s)
        return NULL;
    s[b->len] = '\0';
    *b = (struct buf){.max = b->max};
    return s;
}

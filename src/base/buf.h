/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing bytes with a compulsory cap. Appending beyond the cap fails with -ENOBUFS and leaves the
 * buffer as it was. Consumed bytes at the front are reclaimed lazily.
 */
#pragma once

#include <stdarg.h>

#include "base/attr.h"

struct buf {
    uint8_t *data;    /* NULL while empty and never grown */
    size_t len;       /* readable bytes at data + start */
    size_t start;     /* bytes at the front already consumed */
    size_t allocated; /* bytes behind data */
    size_t max;       /* cap of len */
};

#define BUF_INIT(max_) \
    {                  \
        .max = (max_)  \
    }

static inline void buf_init(struct buf *b, size_t max)
{
    *b = (struct buf){.max = max};
}
void buf_done(struct buf *b);

static inline uint8_t *buf_head(const struct buf *b)
{
    return b->data ? b->data + b->start : NULL;
}

/* All return 0, -ENOBUFS over the cap or -ENOMEM. */
int buf_append(struct buf *b, const void *bytes, size_t n);
int buf_append_str(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *format, ...) _printf_(2, 3);
int buf_vprintf(struct buf *b, const char *format, va_list args) _printf_(2, 0);
/* Room for n bytes at *ret; buf_commit(b, n) makes them readable. */
int buf_reserve(struct buf *b, size_t n, uint8_t **ret);
void buf_commit(struct buf *b, size_t n);
/* Drops n readable bytes at the front. */
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b);
/* Gives memory back when nothing is readable. */
void buf_trim(struct buf *b);
/* Gives the bytes away, NUL-terminated behind the last one; the buffer is empty afterwards.
 * Returns NULL when out of memory. The caller frees. */
char *buf_take_str(struct buf *b);

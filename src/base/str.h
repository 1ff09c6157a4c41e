/* SPDX-License-Identifier: Apache-2.0 */
/* Strings and numbers. Nothing here depends on the locale. */
#pragma once

#include <stdarg.h>

#include "base/attr.h"

bool str_eq(const char *a, const char *b); /* NULL equals NULL only */
static inline bool str_empty(const char *s)
{
    return !s || !*s;
}
/* NULL reads as "". */
static inline const char *str_or_empty(const char *s)
{
    return s ? s : "";
}
/* The rest of s behind the prefix, or NULL. */
const char *str_after_prefix(const char *s, const char *prefix);
bool str_has_suffix(const char *s, const char *suffix);
/* A copy of what is given; "" and NULL are not, and leave *ret alone. -ENOMEM. */
int str_dup_given(const char *s, char **ret);
/* NULL when out of memory. The caller frees. */
char *str_printf(const char *format, ...) _printf_(1, 2);
char *str_vprintf(const char *format, va_list args) _printf_(1, 0);

/* Decimal digits only (a leading '-' for the signed one), whole string. -EINVAL or -ERANGE. */
int str_to_u64(const char *s, uint64_t *ret);
int str_to_i64(const char *s, int64_t *ret);
int str_to_u32(const char *s, uint32_t *ret);
/* "512", "64k", "32MiB", "1g": powers of 1024. */
int str_to_size(const char *s, uint64_t *ret_bytes);

/* The value of a digit in a base of at most 16, either case; -1: it is none. */
int str_digit(char c, int base);
/* Exactly n decimal digits at *s, moved over. -1 if they are not there. */
int str_take_digits(const char **s, int n);
/* Whether c stands at *s, which is then moved over it. */
bool str_take_char(const char **s, char c);
/* Lower-case hex of n bytes and a NUL into out[2 * n + 1]. */
void str_hex(const uint8_t *bytes, size_t n, char *out);
/* Go's %q: double quotes, escapes for what is not printable UTF-8. The caller frees. */
char *str_quote(const char *s);
/* Whether n bytes are UTF-8 without NUL. */
bool str_is_utf8(const char *s, size_t n);
/* Decodes the first character of n bytes: its length, or -EILSEQ (also for overlong forms and
 * surrogates). */
int str_utf8_decode(const char *s, size_t n, uint32_t *ret);
/* c is at most 0x10ffff. Returns the bytes written. */
size_t str_utf8_encode(uint32_t c, char out[4]);
/* False for controls, spaces other than ' ', and characters that show nothing. */
bool str_is_printable(uint32_t c);
/* NULL-terminated string vectors. */
void strv_free(char **v);
static inline void strv_freep(char ***v)
{
    strv_free(*v);
}
size_t strv_len(char *const *v);
/* Appends a copy; *v may be NULL at first. Returns 0 or -ENOMEM. */
int strv_push(char ***v, const char *s);
char **strv_dup(char *const *v);

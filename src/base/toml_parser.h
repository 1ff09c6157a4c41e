/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the TOML parser share: toml_parse.c (tables, keys) and toml_scan.c
 * (strings, numbers, dates). Nobody else includes this. */
#pragma once

#include "base/toml.h"

struct toml_parser {
    const char *name;
    const char *text, *end;
    const char *s; /* what is left, up to end */
    struct toml_value *root;
    struct toml_value *table; /* of the last header */
    unsigned depth;           /* of that table */
    size_t n_keys, n_values;
    const char *line_from; /* line numbers are counted from here on */
    unsigned line;
    struct err *e;
};

/* The byte at s[i], '\0' behind the end. A NUL in the text is an error wherever it stands. */
static inline char toml_peek(const struct toml_parser *p, size_t i)
{
    return i < (size_t)(p->end - p->s) ? p->s[i] : '\0';
}

/* Sets the error for the place `at`. Returns ERR_RETURN. */
int toml_fail(struct toml_parser *p, const char *at, const char *format, ...) _printf_(3, 4);
/* "'x'" or a description of the byte at p->s, for sentences. */
const char *toml_seen(const struct toml_parser *p, char out[16]);

/* A string at p->s in any of the four notations. For keys multi-line ones are refused. */
int toml_scan_string(struct toml_parser *p, bool is_key, char **ret, size_t *ret_len);
/* A number, date, time or boolean at p->s: fills type and content of v. */
int toml_scan_scalar(struct toml_parser *p, struct toml_value *v);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TOML 1.0 (https://toml.io/en/v1.0.0): a text into a tree of values.
 *
 * The tree owns everything in it and is freed as a whole. Members of a table keep the order of the
 * text. Every value knows the line on which it starts (that of its key, for tables), so that
 * whoever reads the tree can say where a mistake is.
 *
 * Errors are ERR_INVALID_ARGUMENT, "<name>:<line>:<column>: <why>", lines and columns counted from
 * 1, columns in characters.
 *
 * Limits: TOML_MAX_BYTES of text, TOML_MAX_DEPTH tables and arrays within each other, TOML_MAX_KEYS
 * members of all tables together, TOML_MAX_VALUES values of any kind.
 */
#pragma once

#include "base/err.h"

#define TOML_MAX_BYTES (1024 * 1024)
#define TOML_MAX_DEPTH 64
#define TOML_MAX_KEYS 16384
#define TOML_MAX_VALUES 65536

enum toml_type {
    TOML_STRING,
    TOML_INTEGER,
    TOML_FLOAT,
    TOML_BOOL,
    TOML_OFFSET_DATETIME,
    TOML_LOCAL_DATETIME,
    TOML_LOCAL_DATE,
    TOML_LOCAL_TIME,
    TOML_ARRAY,
    TOML_TABLE,
};

/* As written; what the type does not have is 0. */
struct toml_datetime {
    int year, month, day;
    int hour, minute, second; /* second may be 60, as in RFC 3339 */
    int nanosecond;           /* digits behind the ninth are dropped */
    int offset_minutes;       /* east of Greenwich */
};

/* How a table came about, which decides what may still be added to it. For the parser. */
enum toml_origin {
    TOML_BY_PATH,   /* on the way to a table named in a header */
    TOML_BY_HEADER, /* [table] or an element of [[tables]] */
    TOML_BY_DOTS,   /* by a dotted key */
    TOML_INLINE,    /* { } or [ ], complete as it stands */
};

struct toml_value;

struct toml_member {
    char *key;      /* NUL-terminated; may hold NULs before its end */
    size_t key_len; /* bytes */
    uint32_t hash;
    unsigned line; /* where the key stands first */
    struct toml_value *value;
};

struct toml_value {
    enum toml_type type;
    enum toml_origin origin;
    unsigned line;
    union {
        struct {
            char *bytes; /* UTF-8, NUL-terminated; may hold NULs before its end */
            size_t len;
        } string;
        int64_t integer;
        double floating;
        bool boolean;
        struct toml_datetime datetime;
        struct {
            struct toml_value **items;
            size_t n, allocated;
        } array;
        struct {
            struct toml_member *members;
            size_t n, allocated;
        } table;
    };
};

/* Parses n bytes. `name` (a path) begins the sentences of errors and is not kept. *ret is the root,
 * a table. */
int toml_parse(const char *text, size_t n, const char *name, struct toml_value **ret,
               struct err *e);
/* Takes NULL. Returns NULL. */
struct toml_value *toml_free(struct toml_value *v);
static inline void toml_freep(struct toml_value **v)
{
    toml_free(*v);
}

/* The member of a table, borrowed from it; NULL if there is none or v is no table. */
struct toml_value *toml_get(const struct toml_value *v, const char *key);
/* "string", "integer", ... with its article, for sentences: "a string", "an integer". */
const char *toml_type_name(enum toml_type type);

/* Appends s as a basic string, quoted and escaped. s must be UTF-8. Errors of buf_append(). */
struct buf;
int toml_write_string(struct buf *b, const char *s);

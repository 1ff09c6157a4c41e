/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small map from string to string, kept sorted by key: labels, annotations, exports. It owns its
 * strings. Cap: STRMAP_MAX entries, then -ENOBUFS.
 */
#pragma once

#include "base/attr.h"

#define STRMAP_MAX 16384

struct strmap_entry {
    char *key;
    char *value;
};
struct strmap {
    struct strmap_entry *entries;
    size_t n;
    size_t allocated;
};

#define STRMAP_FOREACH(e, m) \
    for (struct strmap_entry *e = (m)->entries; e < (m)->entries + (m)->n; e++)

void strmap_done(struct strmap *m);
/* Sets or replaces; copies both. 0, -ENOMEM, -ENOBUFS. */
int strmap_set(struct strmap *m, const char *key, const char *value);
/* Returns true if it was there. */
bool strmap_unset(struct strmap *m, const char *key);
/* Borrowed until the entry changes; NULL if absent. */
const char *strmap_get(const struct strmap *m, const char *key);
int strmap_copy(struct strmap *to, const struct strmap *from); /* `to` is replaced */

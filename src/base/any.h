/* SPDX-License-Identifier: Apache-2.0 */
/* google.protobuf.Any as bytes with a name: what stores keep without looking inside. */
#pragma once

#include "base/attr.h"

struct any {
    char *type_url; /* NULL or "" together with no value: absent */
    uint8_t *value;
    size_t value_len;
};

static inline bool any_is_empty(const struct any *a)
{
    return (!a->type_url || !*a->type_url) && a->value_len == 0;
}
void any_done(struct any *a);
int any_set(struct any *a, const char *type_url, const void *value,
            size_t n); /* replaces; -ENOMEM */
int any_copy(struct any *to, const struct any *from);

/* string -> any, sorted by key (extensions of a container). */
struct anymap_entry {
    char *key;
    struct any value;
};
struct anymap {
    struct anymap_entry *entries;
    size_t n;
};
void anymap_done(struct anymap *m);
int anymap_set(struct anymap *m, const char *key, const struct any *value); /* copies */
bool anymap_unset(struct anymap *m, const char *key);
const struct any *anymap_get(const struct anymap *m, const char *key);
int anymap_copy(struct anymap *to, const struct anymap *from);

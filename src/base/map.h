/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash map from string to pointer. Keys are copied, values are borrowed. The hash is keyed with a
 * random seed a process, so that clients cannot choose collisions. Not thread-safe. Iteration is in
 * order of insertion; inserting during iteration is not allowed, removing the current entry is.
 */
#pragma once

#include "base/attr.h"

struct map_entry {
    char *key; /* NULL: a hole */
    void *value;
};
struct map {
    struct map_entry *entries; /* dense, in insertion order, with holes */
    size_t n_entries;          /* including holes */
    size_t n;                  /* without */
    size_t allocated;
    uint32_t *index;
    size_t index_size;
};

#define MAP_INIT \
    {            \
    }
#define MAP_FOREACH(e, m)                                                            \
    for (struct map_entry *e = (m)->entries; e < (m)->entries + (m)->n_entries; e++) \
        if (e->key)

void map_done(struct map *m); /* values are left alone */
/* 0; -EEXIST if the key is there; -ENOMEM. */
int map_add(struct map *m, const char *key, void *value);
/* Sets or replaces; 0 or -ENOMEM. */
int map_set(struct map *m, const char *key, void *value);
void *map_get(const struct map *m, const char *key);
/* The value that was there, or NULL. */
void *map_remove(struct map *m, const char *key);

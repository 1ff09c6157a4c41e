/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strmap.h"

void strmap_done(struct strmap *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->entries[i].key);
        free(m->entries[i].value);
    }
    free(m->entries);
    *m = (struct strmap){};
}

/* Where key is, or where it would have to be inserted. */
static bool find(const struct strmap *m, const char *key, size_t *ret_at)
{
    size_t low = 0, high = m->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(m->entries[middle].key, key);
        if (order == 0) {
            *ret_at = middle;
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_at = low;
    return false;
}

int strmap_set(struct strmap *m, const char *key, const char *value)
{
    size_t at;
    bool found = find(m, key, &at);
    _free_ char *v = NULL, *k = NULL;

    if (!found && m->n >= STRMAP_MAX)
        return -ENOBUFS;
    if (!(v = strdup(value)))
        return -ENOMEM;
    if (found) {
        free(m->entries[at].value);
        m->entries[at].value = TAKE(v);
        return 0;
    }
    if (!(k = strdup(key)))
        return -ENOMEM;
    if (m->n == m->allocated) {
        size_t room = m->allocated ? 2 * m->allocated : 4;
        struct strmap_entry *entries = reallocarray(m->entries, room, sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        m->entries = entries;
        m->allocated = room;
    }
    memmove(m->entries + at + 1, m->entries + at, (m->n - at) * sizeof(*m->entries));
    m->entries[at].key = TAKE(k);
    m->entries[at].value = TAKE(v);
    m->n++;
    return 0;
}

bool strmap_unset(struct strmap *m, const char *key)
{
    size_t at;

    if (!find(m, key, &at))
        return false;
    free(m->entries[at].key);
    free(m->entries[at].value);
    m->n--;
    memmove(m->entries + at, m->entries + at + 1, (m->n - at) * sizeof(*m->entries));
    return true;
}

const char *strmap_get(const struct strmap *m, const char *key)
{
    size_t at;

    return find(m, key, &at) ? m->entries[at].value : NULL;
}

int strmap_copy(struct strmap *to, const struct strmap *from)
{
    _cleanup_(strmap_done) struct strmap copy = {};

    if (to == from)
        return 0;
    for (size_t i = 0; i < from->n; i++) {
        int r = strmap_set(&copy, from->entries[i].key, from->entries[i].value);
        if (r < 0)
            return r;
    }
    strmap_done(to);
    *to = copy;
    copy = (struct strmap){};
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/any.h"

void any_done(struct any *a)
{
    free(a->type_url);
    free(a->value);
    *a = (struct any){};
}

int any_set(struct any *a, const char *type_url, const void *value, size_t n)
{
    _free_ char *url = NULL;
    uint8_t *bytes = NULL;

    if (type_url && !(url = strdup(type_url)))
        return -ENOMEM;
    if (n) {
        if (!(bytes = malloc(n)))
            return -ENOMEM;
        memcpy(bytes, value, n);
    }
    any_done(a);
    *a = (struct any){.type_url = TAKE(url), .value = bytes, .value_len = n};
    return 0;
}

int any_copy(struct any *to, const struct any *from)
{
    return any_set(to, from->type_url, from->value, from->value_len);
}

void anymap_done(struct anymap *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->entries[i].key);
        any_done(&m->entries[i].value);
    }
    free(m->entries);
    *m = (struct anymap){};
}

/* Where key is, or where it would have to be inserted. Maps of this kind have a handful of keys. */
static bool find(const struct anymap *m, const char *key, size_t *ret_at)
{
    size_t at = 0;
    int order = 1;

    while (at < m->n && (order = strcmp(m->entries[at].key, key)) < 0)
        at++;
    *ret_at = at;
    return at < m->n && order == 0;
}

int anymap_set(struct anymap *m, const char *key, const struct any *value)
{
    _cleanup_(any_done) struct any v = {};
    _free_ char *k = NULL;
    size_t at;

    if (any_copy(&v, value) < 0)
        return -ENOMEM;
    if (!find(m, key, &at)) {
        struct anymap_entry *entries;
        if (!(k = strdup(key)) || !(entries = reallocarray(m->entries, m->n + 1, sizeof(*entries))))
            return -ENOMEM;
        m->entries = entries;
        memmove(entries + at + 1, entries + at, (m->n - at) * sizeof(*entries));
        entries[at] = (struct anymap_entry){.key = TAKE(k)};
        m->n++;
    }
    any_done(&m->entries[at].value);
    m->entries[at].value = v;
    v = (struct any){};
    return 0;
}

bool anymap_unset(struct anymap *m, const char *key)
{
    size_t at;

    if (!find(m, key, &at))
        return false;
    free(m->entries[at].key);
    any_done(&m->entries[at].value);
    m->n--;
    memmove(m->entries + at, m->entries + at + 1, (m->n - at) * sizeof(*m->entries));
    return true;
}

const struct any *anymap_get(const struct anymap *m, const char *key)
{
    size_t at;

    return find(m, key, &at) ? &m->entries[at].value : NULL;
}

int anymap_copy(struct anymap *to, const struct anymap *from)
{
    _cleanup_(anymap_done) struct anymap copy = {};

    if (to == from)
        return 0;
    for (size_t i = 0; i < from->n; i++)
        if (anymap_set(&copy, from->entries[i].key, &from->entries[i].value) < 0)
            return -ENOMEM;
    anymap_done(to);
    *to = copy;
    copy = (struct anymap){};
    return 0;
}

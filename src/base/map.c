/* SPDX-License-Identifier: Apache-2.0 */
#include "base/map.h"

#include <pthread.h>
#include <sys/random.h>

#include "base/clock.h"

/* Slots of the index hold the number of an entry plus one. An entry keeps its slot until the index
 * is built anew, so a slot that names a hole works as the mark of a removed key. */
#define SLOT_EMPTY 0
#define ENTRIES_FIRST 8
#define ENTRIES_MAX (UINT32_MAX / 4)

static uint64_t hash_seed[2];
static pthread_once_t hash_seed_once = PTHREAD_ONCE_INIT;

static void hash_seed_init(void)
{
    /* Early in the boot there may be no randomness: the clock is better than waiting for it. */
    if (getrandom(hash_seed, sizeof(hash_seed), GRND_NONBLOCK) != sizeof(hash_seed)) {
        hash_seed[0] = clock_monotonic_us() * UINT64_C(0x9e3779b97f4a7c15);
        hash_seed[1] = (uint64_t)(uintptr_t)&hash_seed ^ (uint64_t)getpid() << 32;
    }
}

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson and Bernstein, 2012), with one round a word and three at the end. */
static uint64_t hash_key(const char *key)
{
    size_t n = strlen(key);
    uint64_t word;

    pthread_once(&hash_seed_once, hash_seed_init);
    uint64_t v[4] = {
        hash_seed[0] ^ UINT64_C(0x736f6d6570736575),
        hash_seed[1] ^ UINT64_C(0x646f72616e646f6d),
        hash_seed[0] ^ UINT64_C(0x6c7967656e657261),
        hash_seed[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t)n << 56;

    for (; n >= 8; n -= 8, key += 8) {
        memcpy(&word, key, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    memcpy(&word, key, n);
    last |= word;
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void map_done(struct map *m)
{
    for (size_t i = 0; i < m->n_entries; i++)
        free(m->entries[i].key);
    free(m->entries);
    free(m->index);
    *m = (struct map)MAP_INIT;
}

static struct map_entry *find(const struct map *m, const char *key)
{
    if (m->n == 0)
        return NULL;
    for (size_t slot = hash_key(key);; slot++) {
        uint32_t i = m->index[slot & (m->index_size - 1)];
        if (i == SLOT_EMPTY)
            return NULL;
        struct map_entry *e = &m->entries[i - 1];
        if (e->key && strcmp(e->key, key) == 0)
            return e;
    }
}

static void index_insert(struct map *m, size_t entry)
{
    size_t slot = hash_key(m->entries[entry].key);

    while (m->index[slot & (m->index_size - 1)] != SLOT_EMPTY)
        slot++;
    m->index[slot & (m->index_size - 1)] = (uint32_t)entry + 1;
}

/* Closes the holes and makes room for another entry; the index gets twice as many slots as there is
 * room for entries. */
static int make_room(struct map *m)
{
    size_t room = ENTRIES_FIRST;

    if (m->n_entries < m->allocated)
        return 0;
    if (m->n >= ENTRIES_MAX)
        return -ENOMEM;
    while (room < m->n + m->n / 2 + 1)
        room *= 2;
    struct map_entry *entries = malloc(room * sizeof(*entries));
    uint32_t *index = calloc(2 * room, sizeof(*index));
    if (!entries || !index) {
        free(entries);
        free(index);
        return -ENOMEM;
    }
    size_t n = 0;
    for (size_t i = 0; i < m->n_entries; i++)
        if (m->entries[i].key)
            entries[n++] = m->entries[i];
    free(m->entries);
    free(m->index);
    *m = (struct map){.entries = entries,
                      .n_entries = n,
                      .n = n,
                      .allocated = room,
                      .index = index,
                      .index_size = 2 * room};
    for (size_t i = 0; i < n; i++)
        index_insert(m, i);
    return 0;
}

static int append(struct map *m, const char *key, void *value)
{
    _free_ char *copy = strdup(key);

    if (!copy)
        return -ENOMEM;
    int r = make_room(m);
    if (r < 0)
        return r;
    m->entries[m->n_entries] = (struct map_entry){.key = TAKE(copy), .value = value};
    index_insert(m, m->n_entries);
    m->n_entries++;
    m->n++;
    return 0;
}

int map_add(struct map *m, const char *key, void *value)
{
    return find(m, key) ? -EEXIST : append(m, key, value);
}

int map_set(struct map *m, const char *key, void *value)
{
    struct map_entry *e = find(m, key);

    if (!e)
        return append(m, key, value);
    e->value = value;
    return 0;
}

void *map_get(const struct map *m, const char *key)
{
    struct map_entry *e = find(m, key);

    return e ? e->value : NULL;
}

void *map_remove(struct map *m, const char *key)
{
    struct map_entry *e = find(m, key);

    if (!e)
        return NULL;
    void *value = e->value;
    free(e->key);
    *e = (struct map_entry){};
    /* An iteration over the entries goes on to find n_entries lowered, and ends. */
    if (--m->n == 0) {
        m->n_entries = 0;
        memset(m->index, 0, m->index_size * sizeof(*m->index));
    }
    return value;
}

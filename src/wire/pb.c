/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/pb.h"

#include "base/str.h"

/*
 * What unpacking may cost, in bytes of memory: a message of two-byte elements would otherwise grow
 * to fifty times its size in small allocations. The base is for messages of small parts that are
 * small themselves.
 */
#define COST_BASE (1024 * 1024)
#define COST_ALLOCATION 16
#define COST_UNKNOWN (sizeof(ProtobufCMessageUnknownField) + COST_ALLOCATION)
/* protobuf-c notes every field of a message before it reads them: the first few on the stack, the
 * others in pieces of which the last may be half empty. */
#define FIELDS_ON_STACK 16
#define COST_NOTE (2 * 32)

struct scan_level {
    const ProtobufCMessageDescriptor *descriptor;
    const uint8_t *end;
    size_t fields;
};

struct scan {
    const uint8_t *at;
    uint64_t cost;
    size_t depth;
    struct scan_level levels[PB_DEPTH_MAX];
};

static bool scan_varint(struct scan *s, const uint8_t *end, uint64_t *ret)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (s->at == end)
            return false;
        uint8_t byte = *s->at++;
        if (shift < 64)
            value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = value;
            return true;
        }
    }
    return false;
}

/* A field of wire type 2. Returns what is wrong with it, or NULL. */
static const char *scan_bytes(struct scan *s, const uint8_t *end, uint32_t number)
{
    const struct scan_level *level = &s->levels[s->depth - 1];
    uint64_t n;

    if (!scan_varint(s, end, &n) || n > (uint64_t)(end - s->at))
        return "a length goes beyond the end";
    const uint8_t *bytes = s->at;
    s->at += n;

    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(level->descriptor, number);
    if (!f) {
        s->cost += COST_UNKNOWN + n;
        return NULL;
    }
    if (f->label == PROTOBUF_C_LABEL_REPEATED)
        s->cost += sizeof(void *);
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        s->cost += n + 1 + COST_ALLOCATION;
        return str_is_utf8((const char *)bytes, n) ? NULL : "a string is not UTF-8";
    case PROTOBUF_C_TYPE_BYTES:
        s->cost += n + COST_ALLOCATION;
        return NULL;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (s->depth == PB_DEPTH_MAX)
            return "messages are nested too deep";
        const ProtobufCMessageDescriptor *d = f->descriptor;
        s->cost += d->sizeof_message + COST_ALLOCATION;
        s->levels[s->depth++] = (struct scan_level){.descriptor = d, .end = s->at};
        s->at = bytes;
        return NULL;
    default: /* packed numbers: eight bytes each at most, of one byte each at least */
        s->cost += n * sizeof(uint64_t);
        return NULL;
    }
}

static const char *scan_field(struct scan *s)
{
    struct scan_level *level = &s->levels[s->depth - 1];
    const uint8_t *end = level->end;
    uint64_t tag, value;

    if (!scan_varint(s, end, &tag) || tag >> 3 == 0 || tag >> 3 > (1u << 29) - 1)
        return "a field number is out of range";
    uint32_t number = (uint32_t)(tag >> 3);
    size_t fixed = 0;
    if (++level->fields > FIELDS_ON_STACK)
        s->cost += COST_NOTE;
    switch (tag & 7) {
    case 0:
        if (!scan_varint(s, end, &value))
            return "a number does not end";
        break;
    case 1:
        fixed = 8;
        break;
    case 2:
        return scan_bytes(s, end, number);
    case 5:
        fixed = 4;
        break;
    default:
        return "a wire type is not known";
    }
    if (fixed > (size_t)(end - s->at))
        return "a number goes beyond the end";
    s->at += fixed;
    /* As an element of an array, or kept as an unknown field. */
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(level->descriptor, number);
    if (!f)
        s->cost += COST_UNKNOWN + 10;
    else if (f->label == PROTOBUF_C_LABEL_REPEATED)
        s->cost += sizeof(uint64_t);
    return NULL;
}

/* Iterative: the depth comes from the peer. */
static int scan_message(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
                        size_t n, unsigned cost_per_byte, struct err *e)
{
    struct scan s;
    const uint64_t most = COST_BASE + (uint64_t)n * cost_per_byte;

    s.at = bytes;
    s.cost = descriptor->sizeof_message;
    s.depth = 1;
    s.levels[0] = (struct scan_level){.descriptor = descriptor, .end = bytes + n};
    while (s.depth > 0) {
        if (s.at == s.levels[s.depth - 1].end) {
            s.depth--;
            continue;
        }
        const char *wrong = scan_field(&s);
        if (wrong)
            return err_set(e, ERR_INVALID_ARGUMENT, "read %s: %s", descriptor->name, wrong);
        if (s.cost > most)
            return err_set(
                e, ERR_RESOURCE_EXHAUSTED,
                "read %s: its %zu bytes have so many small parts that it would take more "
                "than %llu bytes of memory",
                descriptor->name, n, (unsigned long long)most);
    }
    return 0;
}

static int unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
                  unsigned cost_per_byte, ProtobufCMessage **ret, struct err *e)
{
    static const uint8_t nothing[1];

    if (!bytes)
        bytes = nothing;
    int r = scan_message(descriptor, bytes, n, cost_per_byte, e);
    if (r < 0)
        return r;
    ProtobufCMessage *m = protobuf_c_message_unpack(descriptor, NULL, n, bytes);
    if (!m)
        return err_set(e, ERR_INVALID_ARGUMENT, "read %s: a field has the wrong type",
                       descriptor->name);
    *ret = m;
    return 0;
}

int pb_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
              ProtobufCMessage **ret, struct err *e)
{
    return unpack(descriptor, bytes, n, PB_REPLY_COST, ret, e);
}

int pb_unpack_request(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
                      ProtobufCMessage **ret, struct err *e)
{
    return unpack(descriptor, bytes, n, PB_REQUEST_COST, ret, e);
}

void pb_free(ProtobufCMessage *m)
{
    if (m)
        protobuf_c_message_free_unpacked(m, NULL);
}

int pb_pack(const ProtobufCMessage *m, uint8_t **ret, size_t *ret_n)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *bytes = NULL;

    if (n > 0) {
        bytes = malloc(n);
        if (!bytes)
            return -ENOMEM;
        protobuf_c_message_pack(m, bytes);
    }
    *ret = bytes;
    *ret_n = n;
    return 0;
}

Google__Protobuf__Timestamp *pb_timestamp_new(struct timespec t)
{
    Google__Protobuf__Timestamp *m = malloc(sizeof(*m));

    if (!m)
        return NULL;
    google__protobuf__timestamp__init(m);
    bool none = t.tv_sec == 0 && t.tv_nsec == 0;
    m->seconds = none ? CLOCK_ZERO_SECONDS : t.tv_sec;
    m->nanos = (int32_t)t.tv_nsec;
    return m;
}

struct timespec pb_timestamp_get(const Google__Protobuf__Timestamp *t)
{
    if (!t || t->seconds == CLOCK_ZERO_SECONDS)
        return (struct timespec){.tv_sec = 0};
    return (struct timespec){.tv_sec = t->seconds, .tv_nsec = t->nanos};
}

const char *pb_type_name(const char *type_url)
{
    if (str_after_prefix(type_url, "types.containerd.io/"))
        return type_url;
    const char *slash = strrchr(type_url, '/');
    return slash ? slash + 1 : type_url;
}

int pb_any_get(const Google__Protobuf__Any *from, struct any *to)
{
    if (!from || (str_empty(from->type_url) && from->value.len == 0)) {
        any_done(to);
        *to = (struct any){.type_url = NULL};
        return 0;
    }
    return any_set(to, str_or_empty(from->type_url), from->value.data, from->value.len);
}

static Google__Protobuf__Any *any_message_new(const char *type_url, uint8_t *take_value, size_t n)
{
    Google__Protobuf__Any *m = malloc(sizeof(*m));
    char *name = strdup(type_url);

    if (!m || !name) {
        free(m);
        free(name);
        free(take_value);
        return NULL;
    }
    google__protobuf__any__init(m);
    m->type_url = name;
    m->value.data = take_value;
    m->value.len = n;
    return m;
}

Google__Protobuf__Any *pb_any_new(const struct any *from)
{
    uint8_t *value = NULL;

    if (!from || any_is_empty(from))
        return NULL;
    if (from->value_len > 0) {
        value = malloc(from->value_len);
        if (!value)
            return NULL;
        memcpy(value, from->value, from->value_len);
    }
    return any_message_new(str_or_empty(from->type_url), value, from->value_len);
}

Google__Protobuf__Any *pb_any_pack(const ProtobufCMessage *m)
{
    uint8_t *value;
    size_t n;

    if (pb_pack(m, &value, &n) < 0)
        return NULL;
    return any_message_new(m->descriptor->name, value, n);
}

int any_pack(struct any *to, const ProtobufCMessage *m)
{
    uint8_t *value;
    size_t n;

    int r = pb_pack(m, &value, &n);
    if (r < 0)
        return r;
    r = any_set(to, m->descriptor->name, value, n);
    free(value);
    return r;
}

bool pb_any_is(const Google__Protobuf__Any *a, const ProtobufCMessageDescriptor *descriptor)
{
    return a && a->type_url && strcmp(pb_type_name(a->type_url), descriptor->name) == 0;
}

int pb_strmap_get(void *const *entries, size_t n, struct strmap *to)
{
    for (size_t i = 0; i < n; i++) {
        const struct pb_string_entry *entry = entries[i];
        int r = strmap_set(to, str_or_empty(entry->key), str_or_empty(entry->value));
        if (r < 0)
            return r;
    }
    return 0;
}

int pb_strmap_new(const struct strmap *from, const ProtobufCMessageDescriptor *entry, void ***ret,
                  size_t *ret_n)
{
    size_t n = 0;
    void **entries = calloc(from->n ? from->n : 1, sizeof(*entries));

    if (!entries)
        return -ENOMEM;
    STRMAP_FOREACH (e, from) {
        struct pb_string_entry *m = malloc(entry->sizeof_message);
        if (!m)
            goto out_of_memory;
        protobuf_c_message_init(entry, m);
        entries[n++] = m;
        char *key = strdup(e->key);
        char *value = strdup(e->value);
        if (key)
            m->key = key;
        if (value)
            m->value = value;
        if (!key || !value)
            goto out_of_memory;
    }
    *ret = entries;
    *ret_n = n;
    return 0;

out_of_memory:
    while (n > 0)
        pb_free(entries[--n]);
    free(entries);
    return -ENOMEM;
}

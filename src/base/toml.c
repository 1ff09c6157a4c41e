/* SPDX-License-Identifier: Apache-2.0 */
#include "base/toml.h"

#include "base/buf.h"

/* No deeper than two steps (array and table) for each level that the parser admits. */
struct toml_value *toml_free(struct toml_value *v)
{
    if (!v)
        return NULL;
    switch (v->type) {
    case TOML_STRING:
        free(v->string.bytes);
        break;
    case TOML_ARRAY:
        for (size_t i = 0; i < v->array.n; i++)
            toml_free(v->array.items[i]);
        free(v->array.items);
        break;
    case TOML_TABLE:
        for (size_t i = 0; i < v->table.n; i++) {
            free(v->table.members[i].key);
            toml_free(v->table.members[i].value);
        }
        free(v->table.members);
        break;
    default:
        break;
    }
    free(v);
    return NULL;
}

struct toml_value *toml_get(const struct toml_value *v, const char *key)
{
    size_t n = strlen(key);

    if (!v || v->type != TOML_TABLE)
        return NULL;
    for (size_t i = 0; i < v->table.n; i++) {
        const struct toml_member *m = &v->table.members[i];
        if (m->key_len == n && memcmp(m->key, key, n) == 0)
            return m->value;
    }
    return NULL;
}

const char *toml_type_name(enum toml_type type)
{
    switch (type) {
    case TOML_STRING:
        return "a string";
    case TOML_INTEGER:
        return "an integer";
    case TOML_FLOAT:
        return "a float";
    case TOML_BOOL:
        return "a boolean";
    case TOML_OFFSET_DATETIME:
    case TOML_LOCAL_DATETIME:
        return "a date and time";
    case TOML_LOCAL_DATE:
        return "a date";
    case TOML_LOCAL_TIME:
        return "a time";
    case TOML_ARRAY:
        return "an array";
    case TOML_TABLE:
        return "a table";
    }
    return "nothing";
}

int toml_write_string(struct buf *b, const char *s)
{
    static const char plain[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
    int r = buf_append(b, "\"", 1);

    for (; r == 0 && *s; s++) {
        const char *p = strchr(plain, *s);
        if (p)
            r = buf_printf(b, "\\%c", letters[p - plain]);
        else if ((uint8_t)*s < 0x20 || *s == 0x7f)
            r = buf_printf(b, "\\u%04X", (uint8_t)*s);
        else
            r = buf_append(b, s, 1);
    }
    return r == 0 ? buf_append(b, "\"", 1) : r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Input: a document. */
#include "base/toml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every byte of the tree, for the sanitizers. */
static size_t walk(const struct toml_value *v)
{
    size_t sum = v->line;

    switch (v->type) {
    case TOML_STRING:
        if (v->string.bytes[v->string.len] != '\0')
            __builtin_trap();
        for (size_t i = 0; i < v->string.len; i++)
            sum += (uint8_t)v->string.bytes[i];
        break;
    case TOML_ARRAY:
        for (size_t i = 0; i < v->array.n; i++)
            sum += walk(v->array.items[i]);
        break;
    case TOML_TABLE:
        for (size_t i = 0; i < v->table.n; i++)
            sum += v->table.members[i].key_len + walk(v->table.members[i].value);
        break;
    default:
        break;
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(toml_freep) struct toml_value *root = NULL;
    struct err e = ERR_INIT;

    if (toml_parse((const char *)data, size, "fuzz", &root, &e) < 0) {
        if (e.code == ERR_OK || strncmp(e.msg, "fuzz:", 5) != 0)
            __builtin_trap();
        return 0;
    }
    if (walk(root) == 0)
        __builtin_trap(); /* the root is in line 1 */
    return 0;
}

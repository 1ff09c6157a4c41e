/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_headers.h"

void grpc_headers_done(struct grpc_headers *h)
{
    free(h->bytes);
    *h = (struct grpc_headers){};
}

int grpc_headers_add(struct grpc_headers *h, const char *name, size_t name_len, const char *value,
                     size_t value_len)
{
    char *bytes = realloc(h->bytes, h->len + name_len + value_len + 2);
    if (!bytes)
        return -ENOMEM;
    memcpy(bytes + h->len, name, name_len + 1);
    memcpy(bytes + h->len + name_len + 1, value, value_len + 1);
    h->bytes = bytes;
    h->len += name_len + value_len + 2;
    return 0;
}

const char *grpc_headers_get(const struct grpc_headers *h, const char *name)
{
    for (size_t i = 0; i < h->len;) {
        const char *p = h->bytes + i;
        const char *value = p + strlen(p) + 1;
        if (strcmp(p, name) == 0)
            return value;
        i = (size_t)(value - h->bytes) + strlen(value) + 1;
    }
    return NULL;
}

size_t grpc_headers_count(const struct grpc_headers *h, const char *name)
{
    size_t n = 0;

    for (size_t i = 0; i < h->len;) {
        const char *p = h->bytes + i;
        const char *value = p + strlen(p) + 1;
        n += strcmp(p, name) == 0;
        i = (size_t)(value - h->bytes) + strlen(value) + 1;
    }
    return n;
}

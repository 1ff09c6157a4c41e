/* SPDX-License-Identifier: Apache-2.0 */
/* The headers of a call in one allocation: name NUL value NUL, in the order they came. */
#pragma once

#include "base/attr.h"

struct grpc_headers {
    char *bytes;
    size_t len;
};

void grpc_headers_done(struct grpc_headers *h);
/* Both are NUL-terminated and hold no NUL of their own. -ENOMEM. The caller keeps count of the
 * size. */
int grpc_headers_add(struct grpc_headers *h, const char *name, size_t name_len, const char *value,
                     size_t value_len);
/* First value, NULL if absent; borrowed. */
const char *grpc_headers_get(const struct grpc_headers *h, const char *name);
size_t grpc_headers_count(const struct grpc_headers *h, const char *name);

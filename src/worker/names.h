/* SPDX-License-Identifier: Apache-2.0 */
/* The names of one directory, in order of their bytes, whatever order the file system has. */
#pragma once

#include "base/attr.h"

#define NAMES_MAX UINT64_C(4000000)  /* of one directory */
#define NAMES_BYTES_MAX (256u << 20) /* of one directory, with a NUL each */

struct names {
    char *bytes;
    size_t n_bytes, room;
    uint32_t *at; /* where in bytes each begins */
    size_t n, allocated;
};

/* Reads fd, an open directory, from its start; what x held is freed. -EFBIG over the caps. */
int names_read(struct names *x, int fd);
void names_done(struct names *x);
static inline const char *names_get(const struct names *x, size_t i)
{
    return i < x->n ? x->bytes + x->at[i] : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd's filter expressions over named fields.
 *
 *     filter    := selector { "," selector }          all must hold
 *     selector  := fieldpath [ operator value ]       without operator: the field is present
 *     operator  := "==" | "!=" | "~="
 *     fieldpath := field { "." field }
 *
 * A list of filters holds when one of them does; an empty list, or one empty string, matches
 * everything. `~=` searches with an extended regular expression (glibc's, bounded in length and
 * without back references, where containerd uses RE2).
 *
 * Limits: FILTER_MAX_TERMS selectors, FILTER_MAX_LEN bytes a filter, else ERR_INVALID_ARGUMENT.
 */
#pragma once

#include "base/err.h"

#define FILTER_MAX_LEN 65536
#define FILTER_MAX_TERMS 4096

struct filter; /* a whole list, parsed */

/*
 * Looks a field up. `path` has n parts ("labels", "containerd.io/foo"). Returns the value, borrowed
 * until the next call, and NULL if the field is absent.
 */
typedef const char *(*filter_field_fn)(const void *object, const char *const *path, size_t n);

/* "filters: parse error: [...]: ...: invalid argument" on failure. */
int filter_parse(const char *const *expressions, size_t n, struct filter **ret, struct err *e);
bool filter_matches(const struct filter *f, filter_field_fn field, const void *object);
bool filter_is_all(const struct filter *f); /* matches everything */
struct filter *filter_free(struct filter *f);
static inline void filter_freep(struct filter **f)
{
    filter_free(*f);
}

/* Joins path[from..n) with '.' for label keys with dots; into a caller's buffer, cut at size. */
const char *filter_join_path(const char *const *path, size_t from, size_t n, char *out,
                             size_t size);

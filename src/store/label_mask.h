/* SPDX-License-Identifier: Apache-2.0 */
/* Update masks of objects of which nothing but labels can change: content and snapshots. */
#pragma once

#include "base/err.h"
#include "base/strmap.h"

/*
 * Brings `labels` up to date from what the client gave. Without paths all are replaced; "labels"
 * does the same, "labels.<key>" one, whatever dots the key has; an empty value removes. Any other
 * path is ERR_INVALID_ARGUMENT `cannot update "<path>" field on <noun> "<id>": invalid argument`.
 */
int label_mask_apply(struct strmap *labels, const struct strmap *given, const char *const *paths,
                     size_t n_paths, const char *noun, const char *id, struct err *e);

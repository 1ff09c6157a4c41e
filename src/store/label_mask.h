/* SPDX-License-Identifier: Apache-2.0 */
/* Update masks on maps in memory: of labels, and of what has the form of labels. */
#pragma once

#include "base/err.h"
#include "base/strmap.h"

/*
 * One path. "<field>": `to` becomes `from`; "<field>.<key>": the value of that key is taken over,
 * and one that is absent or empty is removed (everything behind the first dot is the key). 1 when
 * the path was one of these, 0 when it names something else, negative -ENOMEM or -ENOBUFS.
 */
int label_mask_apply_path(struct strmap *to, const struct strmap *from, const char *field,
                          const char *path);
/*
 * All paths, for objects of which nothing but labels can change: content and snapshots. Without
 * paths all labels are replaced. A path that names something else is ERR_INVALID_ARGUMENT
 * `cannot update "<path>" field on <noun> "<id>": invalid argument`, and `labels` is then of no
 * use.
 */
int label_mask_apply(struct strmap *labels, const struct strmap *given, const char *const *paths,
                     size_t n_paths, const char *noun, const char *id, struct err *e);

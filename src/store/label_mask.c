/* SPDX-License-Identifier: Apache-2.0 */
#include "store/label_mask.h"

#include "base/str.h"

static int refuse(const char *path, const char *noun, const char *id, struct err *e)
{
    _free_ char *quoted = str_quote(path);
    _free_ char *quoted_id = str_quote(id);

    if (!quoted || !quoted_id)
        return err_oom(e);
    return err_set(e, ERR_INVALID_ARGUMENT, "cannot update %s field on %s %s: invalid argument",
                   quoted, noun, quoted_id);
}

static int apply_one(struct strmap *labels, const struct strmap *given, const char *key)
{
    const char *value = strmap_get(given, key);

    if (!str_empty(value))
        return strmap_set(labels, key, value);
    strmap_unset(labels, key);
    return 0;
}

int label_mask_apply(struct strmap *labels, const struct strmap *given, const char *const *paths,
                     size_t n_paths, const char *noun, const char *id, struct err *e)
{
    int r = 0;

    for (size_t i = 0; i < n_paths; i++) {
        if (!str_eq(paths[i], "labels") && !str_after_prefix(paths[i], "labels."))
            return refuse(paths[i], noun, id, e);
    }
    if (n_paths == 0)
        r = strmap_copy(labels, given);
    for (size_t i = 0; i < n_paths && r >= 0; i++) {
        const char *key = str_after_prefix(paths[i], "labels.");
        r = key ? apply_one(labels, given, key) : strmap_copy(labels, given);
    }
    if (r == -ENOBUFS)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s %s: more than %d labels: invalid argument",
                       noun, id, STRMAP_MAX);
    return r < 0 ? err_oom(e) : 0;
}

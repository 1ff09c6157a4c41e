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

int label_mask_apply_path(struct strmap *to, const struct strmap *from, const char *field,
                          const char *path)
{
    const char *key = str_after_prefix(path, field);
    const char *value;

    if (!key)
        return 0;
    if (!*key) {
        int r = strmap_copy(to, from);
        return r < 0 ? r : 1;
    }
    if (*key != '.')
        return 0;
    key++;
    value = strmap_get(from, key);
    if (str_empty(value)) {
        strmap_unset(to, key);
        return 1;
    }
    int r = strmap_set(to, key, value);
    return r < 0 ? r : 1;
}

int label_mask_apply(struct strmap *labels, const struct strmap *given, const char *const *paths,
                     size_t n_paths, const char *noun, const char *id, struct err *e)
{
    int r = n_paths == 0 ? strmap_copy(labels, given) : 1;

    for (size_t i = 0; i < n_paths && r >= 0; i++) {
        r = label_mask_apply_path(labels, given, "labels", paths[i]);
        if (r == 0)
            return refuse(paths[i], noun, id, e);
    }
    if (r == -ENOBUFS)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s %s: more than %d labels: invalid argument",
                       noun, id, STRMAP_MAX);
    return r < 0 ? err_oom(e) : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Input: filters, one a line. */
#include "base/filter.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *field(const void *object, const char *const *path, size_t n)
{
    char joined[64];

    filter_join_path(path, 0, n, joined, sizeof(joined));
    return joined[0] & 1 ? object : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _cleanup_(strv_freep) char **lines = NULL;
    _cleanup_(filter_freep) struct filter *f = NULL;
    _free_ char *text = strndup((const char *)data, size);
    struct err e = ERR_INIT;

    for (char *line = text, *end; text && line; line = end ? end + 1 : NULL) {
        if ((end = strchr(line, '\n')))
            *end = '\0';
        if (strv_push(&lines, line) < 0)
            return 0;
    }
    if (filter_parse((const char *const *)lines, strv_len(lines), &f, &e) < 0) {
        if (e.code == ERR_OK || !*e.msg)
            __builtin_trap();
        return 0;
    }
    filter_matches(f, field, "some value of 42 bytes, é, and \x80 too");
    return 0;
}

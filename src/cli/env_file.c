/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/env_file.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"

const char *env_get(char *const *env, const char *name)
{
    size_t n = strlen(name);

    for (; env && *env; env++) {
        if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
            return *env + n + 1;
    }
    return NULL;
}

static int put(char ***env, const char *assignment, size_t name_len, struct err *e)
{
    for (char **at = *env; at && *at; at++) {
        if (strncmp(*at, assignment, name_len + 1) != 0)
            continue;
        char *copy = strdup(assignment);
        if (!copy)
            return err_oom(e);
        free(*at);
        *at = copy;
        return 0;
    }
    return strv_push(env, assignment) < 0 ? err_oom(e) : 0;
}

int env_add(char ***env, const char *assignment, struct err *e)
{
    const char *equals = strchr(assignment, '=');
    _free_ char *whole = NULL;
    const char *value;

    if (equals == assignment || !*assignment)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "\"%s\" is no environment variable: it has no name; write NAME=value",
                       assignment);
    if (equals)
        return put(env, assignment, (size_t)(equals - assignment), e);
    value = getenv(assignment);
    if (!value)
        return 0;
    whole = str_printf("%s=%s", assignment, value);
    if (!whole)
        return err_oom(e);
    return put(env, whole, strlen(assignment), e);
}

int env_add_lines(char ***env, const char *text, const char *file, struct err *e)
{
    for (unsigned line = 1; *text; line++) {
        size_t n = strcspn(text, "\n");
        size_t kept = n > 0 && text[n - 1] == '\r' ? n - 1 : n;
        _free_ char *copy = strndup(text, kept);
        const char *start;
        int r;

        if (!copy)
            return err_oom(e);
        start = copy + strspn(copy, " \t");
        if (*start && *start != '#') {
            r = strcspn(start, " \t") < strcspn(start, "=")
                    ? err_set(e, ERR_INVALID_ARGUMENT,
                              "the name of an environment variable holds no spaces: \"%s\"", start)
                    : env_add(env, start, e);
            if (r < 0)
                return err_wrap(e, "%s, line %u", file, line);
        }
        text += n;
        if (*text)
            text++;
    }
    return 0;
}

int env_add_file(char ***env, const char *path, struct err *e)
{
    _free_ char *text = NULL;
    size_t n = 0;
    int r = fs_read_file(AT_FDCWD, path, ENV_FILE_MAX, &text, &n);

    if (r < 0)
        return err_errno(e, r, "read the environment file %s", path);
    if (!str_is_utf8(text, n))
        return err_set(e, ERR_INVALID_ARGUMENT, "the environment file %s is no UTF-8 text", path);
    return env_add_lines(env, text, path, e);
}

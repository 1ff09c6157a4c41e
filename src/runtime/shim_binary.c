/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_binary.h"

#include <ctype.h>

#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"

void shim_binary_done(struct shim_binary *b)
{
    free(b->path);
    *b = (struct shim_binary){0};
}

static bool is_our_name(const char *runtime)
{
    return str_eq(runtime, "io.containerd.runc.v2") || str_eq(runtime, "io.containerd.wherry.v2");
}

static int custom_path(const char *path, struct shim_binary *ret, struct err *e)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "invalid custom binary path: stat %s: %s", path,
                       err_strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID_ARGUMENT, "invalid custom binary path: %s is not a file",
                       path);
    ret->path = strdup(path);
    return ret->path ? 0 : err_oom(e);
}

/* containerd-shim-NAME-VERSION of the last two parts of a dotted name; NULL for fewer, or for parts
 * that could lead elsewhere. */
static char *binary_name(const char *runtime)
{
    const char *version = strrchr(runtime, '.');
    if (!version || version == runtime || !version[1])
        return NULL;
    const char *name = version;
    while (name > runtime && name[-1] != '.')
        name--;
    if (name == runtime || name == version)
        return NULL;
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '.' && *c != '-' && *c != '_')
            return NULL;
    return str_printf("containerd-shim-%.*s-%s", (int)(version - name), name, version + 1);
}

static int installed(const char *runtime, const char *name, const char *daemon_dir,
                     struct shim_binary *ret, struct err *e)
{
    char *path = NULL;

    if (proc_find_program(name, NULL, &path) < 0 && proc_find_program(name, daemon_dir, &path) < 0)
        /* To a client NOT_FOUND would mean that there is no such container. */
        return err_set(e, ERR_UNKNOWN,
                       "runtime \"%s\" binary not installed \"%s\": file does not exist", runtime,
                       name);
    ret->path = path;
    return 0;
}

int shim_binary_resolve(const char *runtime, const char *own_path, const char *override_path,
                        const char *daemon_dir, struct shim_binary *ret, struct err *e)
{
    struct shim_binary b = {0};
    int r;

    if (is_our_name(runtime) && str_empty(override_path)) {
        r = custom_path(own_path, &b, e);
        if (r < 0)
            return err_wrap(e, "our own shim is missing");
        b.is_ours = true;
    } else if (is_our_name(runtime)) {
        r = custom_path(override_path, &b, e);
    } else if (runtime[0] == '/') {
        r = custom_path(runtime, &b, e);
    } else {
        _free_ char *name = strchr(runtime, '/') ? NULL : binary_name(runtime);
        if (!name)
            return err_set(
                e, ERR_INVALID_ARGUMENT,
                "invalid runtime name %s, correct runtime name should be either format like "
                "`io.containerd.runc.v1` or a full path to the binary",
                runtime);
        r = installed(runtime, name, daemon_dir, &b, e);
    }
    if (r < 0)
        return r;
    *ret = b;
    return 0;
}

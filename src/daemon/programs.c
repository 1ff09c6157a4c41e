/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/programs.h"

#include <limits.h>

#include "base/fs.h"
#include "base/proc.h"

static int find_program(const char *name, const char *dir, char **ret, struct err *e)
{
    if (proc_find_program(name, dir, ret) >= 0 || proc_find_program(name, NULL, ret) >= 0)
        return 0;
    return err_set(e, ERR_NOT_FOUND, "%s is neither in %s nor on PATH: install it beside wherryd",
                   name, dir);
}

int programs_find(struct programs *ret, struct err *e)
{
    char path[PATH_MAX];

    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (n < 0)
        return err_errno(e, -errno, "read /proc/self/exe");
    path[n] = '\0';
    ret->daemon = strdup(path);
    *strrchr(path, '/') = '\0';
    ret->dir = strdup(path[0] ? path : "/");
    if (!ret->daemon || !ret->dir)
        return err_oom(e);
    int r = find_program("containerd-shim-wherry-v2", ret->dir, &ret->shim, e);
    if (r >= 0)
        r = find_program("wherry-worker", ret->dir, &ret->worker, e);
    return r;
}

void programs_done(struct programs *p)
{
    free(p->daemon);
    free(p->dir);
    free(p->shim);
    free(p->worker);
    *p = (struct programs){0};
}

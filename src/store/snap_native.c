/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native backend: every active snapshot is a full copy of its parent, in
 * <root>/snapshots/<dir>. It works on any filesystem; a view shows its parent's directory
 * read-only.
 */
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/str.h"
#include "store/copy_tree.h"
#include "store/disk.h"
#include "store/snapshots.h"

#define DIR_NAME_MAX 24

struct native {
    char *dirs; /* "<root>/snapshots" */
    int dirs_fd;
};

static void native_done(void *state)
{
    struct native *n = state;

    close_fd(&n->dirs_fd);
    free(n->dirs);
    free(n);
}

static int native_init(const char *root, const struct snapshotters_options *options,
                       void **ret_state, struct err *e)
{
    struct native *n = calloc(1, sizeof(*n));
    int r = 0;

    if (!n)
        return err_oom(e);
    n->dirs_fd = -EBADF;
    n->dirs = fs_join(root, "snapshots");
    if (n->dirs) {
        n->dirs_fd = neg_errno(open(n->dirs, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (n->dirs_fd < 0)
            r = disk_error(e, n->dirs_fd, "open %s", n->dirs);
    } else {
        r = err_oom(e);
    }
    if (r < 0) {
        native_done(n);
        return r;
    }
    *ret_state = n;
    return 0;
}

static void dir_name(int64_t dir, char out[DIR_NAME_MAX])
{
    snprintf(out, DIR_NAME_MAX, "%lld", (long long)dir);
}

static int make_dir(struct native *n, const struct snapshot_dirs *s)
{
    char name[DIR_NAME_MAX], parent[DIR_NAME_MAX];
    int r;

    dir_name(s->dir, name);
    r = neg_errno(mkdirat(n->dirs_fd, name, 0700));
    if (r >= 0)
        r = neg_errno(fchmodat(n->dirs_fd, name, 0755, 0));
    if (r < 0 || s->kind == SNAPSHOT_VIEW || s->n_parents == 0)
        return r;
    dir_name(s->parents[0], parent);
    return copy_tree(n->dirs_fd, parent, n->dirs_fd, name);
}

static int native_create(void *state, const struct snapshot_dirs *s, const struct strmap *labels,
                         struct err *e)
{
    struct native *n = state;
    int r = make_dir(n, s);

    return r < 0 ? disk_error(e, r, "make snapshot directory %s/%lld", n->dirs, (long long)s->dir)
                 : 0;
}

static int native_mounts(void *state, const struct snapshot_dirs *s, struct mount_list *ret,
                         struct err *e)
{
    struct native *n = state;
    bool view = s->kind == SNAPSHOT_VIEW;
    int64_t dir = view && s->n_parents > 0 ? s->parents[0] : s->dir;
    _free_ char *source = str_printf("%s/%lld", n->dirs, (long long)dir);
    _cleanup_(mount_list_done) struct mount_list l = {};
    char rw[] = "rw", ro[] = "ro", rbind[] = "rbind";
    char *options[] = {rbind, view ? ro : rw, NULL};

    if (!source || mount_list_add(&l, "bind", source, NULL, options) < 0)
        return err_oom(e);
    *ret = l;
    l = (struct mount_list){};
    return 0;
}

static int native_usage(void *state, const struct snapshot_dirs *s, int64_t *ret_bytes,
                        int64_t *ret_inodes, struct err *e)
{
    struct native *n = state;
    char name[DIR_NAME_MAX];
    int r;

    dir_name(s->dir, name);
    r = fs_usage(n->dirs_fd, name, ret_bytes, ret_inodes);
    return r < 0 ? disk_error(e, r, "usage of %s/%s", n->dirs, name) : 0;
}

static int native_sync(void *state, const struct snapshot_dirs *s, struct err *e)
{
    struct native *n = state;
    int r = neg_errno(syncfs(n->dirs_fd));

    return r < 0 ? disk_error(e, r, "sync %s", n->dirs) : 0;
}

const struct snapshotter_ops snapshotter_native = {
    .name = "native",
    .init = native_init,
    .done = native_done,
    .create = native_create,
    .mounts = native_mounts,
    .usage = native_usage,
    .sync = native_sync,
};

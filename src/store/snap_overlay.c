/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The overlayfs backend: <root>/snapshots/<dir>/fs holds what a snapshot adds to its parent, `work`
 * is overlayfs' own and only there for those that can be written to.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"
#include "store/disk.h"
#include "store/mount_space.h"
#include "store/snapshots.h"

#define OVERLAY_LOWER_MAX 500 /* OVL_MAX_STACK of the kernel */
#define OVERLAY_OPTION_MAX (1 << 20)
#define DIR_NAME_MAX 48
#define INDEX_PARAMETER "/sys/module/overlay/parameters/index"

struct overlay {
    char *dirs; /* "<root>/snapshots" */
    int dirs_fd;
    bool index_off;  /* the kernel knows the option */
    bool user_xattr; /* trusted.* attributes are out of reach */
    bool upperdir_label;
    char **mount_options; /* of the configuration; may be NULL */
};

static void overlay_done(void *state)
{
    struct overlay *o = state;

    close_fd(&o->dirs_fd);
    strv_free(o->mount_options);
    free(o->dirs);
    free(o);
}

/* A mount of two lower directories and an upper one, as containers get it. */
static int probe_mount(void *userdata, struct err *e)
{
    const char *dir = userdata;
    _cleanup_(mount_list_done) struct mount_list l = {};
    _free_ char *lower = str_printf("lowerdir=%s/lower2:%s/lower1", dir, dir);
    _free_ char *upper = str_printf("upperdir=%s/upper", dir);
    _free_ char *work = str_printf("workdir=%s/work", dir);
    _free_ char *target = str_printf("%s/merged", dir);
    char *options[] = {lower, upper, work, NULL};

    if (!lower || !upper || !work || !target ||
        mount_list_add(&l, "overlay", "overlay", NULL, options) < 0)
        return err_oom(e);
    return mount_do(&l.mounts[0], target, e);
}

static int probe(struct overlay *o, struct err *e)
{
    static const char *const names[] = {"lower1", "lower2", "upper", "work", "merged"};
    _free_ char *dir = str_printf("%s/probe", o->dirs);
    char path[32];
    int r;

    if (!dir)
        return err_oom(e);
    r = fs_rm_rf(o->dirs_fd, "probe");
    for (size_t i = 0; i < ARRAY_SIZE(names) && r >= 0; i++) {
        snprintf(path, sizeof(path), "probe/%s", names[i]);
        r = fs_mkdir_p(o->dirs_fd, path, 0700);
    }
    if (r < 0)
        r = disk_error(e, r, "make %s", dir);
    else
        r = mount_space_run(probe_mount, dir, e);
    if (r >= 0) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d/probe", o->dirs_fd);
        o->user_xattr = setxattr(path, "trusted.overlay.probe", "y", 1, 0) < 0 && errno == EPERM;
    }
    fs_rm_rf(o->dirs_fd, "probe");
    return r;
}

static int overlay_init(const char *root, const struct snapshotters_options *options,
                        void **ret_state, struct err *e)
{
    struct overlay *o = calloc(1, sizeof(*o));
    struct err why = ERR_INIT;
    int r;

    if (!o)
        return err_oom(e);
    o->dirs_fd = -EBADF;
    o->upperdir_label = options->overlay_upperdir_label;
    o->dirs = fs_join(root, "snapshots");
    r = o->dirs ? 0 : -ENOMEM;
    for (char *const *p = options->overlay_mount_options; p && *p && r >= 0; p++)
        r = strv_push(&o->mount_options, *p);
    if (r < 0) {
        overlay_done(o);
        return err_oom(e);
    }
    o->dirs_fd = neg_errno(open(o->dirs, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (o->dirs_fd < 0)
        r = disk_error(&why, o->dirs_fd, "open %s", o->dirs);
    else if (strpbrk(o->dirs, ":,\\"))
        r = err_set(&why, ERR_UNIMPLEMENTED, "its path holds ':', ',' or '\\'");
    else
        r = probe(o, &why);
    if (r < 0) {
        overlay_done(o);
        return err_set(e, ERR_UNIMPLEMENTED, "overlayfs does not work in %s: %s: skip plugin", root,
                       why.msg);
    }
    o->index_off = access(INDEX_PARAMETER, F_OK) == 0;
    *ret_state = o;
    return 0;
}

static void dir_name(int64_t dir, const char *below, char out[DIR_NAME_MAX])
{
    snprintf(out, DIR_NAME_MAX, "%lld%s", (long long)dir, below);
}

/* The root directory of a container is the upper directory: it looks like the parent's. */
static int look_like(int dirs_fd, int64_t parent, int fs_fd)
{
    char name[DIR_NAME_MAX];
    struct stat st;
    int r;

    dir_name(parent, "/fs", name);
    r = neg_errno(fstatat(dirs_fd, name, &st, AT_SYMLINK_NOFOLLOW));
    if (r >= 0)
        r = neg_errno(fchown(fs_fd, st.st_uid, st.st_gid));
    return r < 0 ? r : neg_errno(fchmod(fs_fd, st.st_mode & 07777));
}

static int make_dirs(struct overlay *o, const struct snapshot_dirs *s)
{
    char name[DIR_NAME_MAX];
    _close_ int fd = -EBADF;
    int r;

    dir_name(s->dir, "", name);
    r = neg_errno(mkdirat(o->dirs_fd, name, 0700));
    if (r < 0)
        return r;
    if (s->kind == SNAPSHOT_ACTIVE) {
        dir_name(s->dir, "/work", name);
        r = fs_mkdir_p(o->dirs_fd, name, 0711);
    }
    dir_name(s->dir, "/fs", name);
    if (r >= 0)
        r = fs_mkdir_p(o->dirs_fd, name, 0755);
    if (r < 0 || s->n_parents == 0)
        return r;
    fd = neg_errno(openat(o->dirs_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    return fd < 0 ? fd : look_like(o->dirs_fd, s->parents[0], fd);
}

static int overlay_create(void *state, const struct snapshot_dirs *s, const struct strmap *labels,
                          struct err *e)
{
    struct overlay *o = state;
    int r = make_dirs(o, s);

    return r < 0 ? disk_error(e, r, "make snapshot directory %s/%lld", o->dirs, (long long)s->dir)
                 : 0;
}

static int add_bind(struct overlay *o, int64_t dir, bool writable, struct mount_list *l)
{
    _free_ char *source = str_printf("%s/%lld/fs", o->dirs, (long long)dir);
    char rw[] = "rw", ro[] = "ro", rbind[] = "rbind";
    char *options[] = {writable ? rw : ro, rbind, NULL};

    return source ? mount_list_add(l, "bind", source, NULL, options) : -ENOMEM;
}

/* "lowerdir=<nearest>:...:<farthest>" */
static int lower_option(struct overlay *o, const struct snapshot_dirs *s, char **ret)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(OVERLAY_OPTION_MAX);
    int r = buf_append_str(&b, "lowerdir=");

    for (size_t i = 0; i < s->n_parents && r >= 0; i++)
        r = buf_printf(&b, "%s%s/%lld/fs", i > 0 ? ":" : "", o->dirs, (long long)s->parents[i]);
    if (r < 0)
        return r;
    *ret = buf_take_str(&b);
    return *ret ? 0 : -ENOMEM;
}

static int add_overlay(struct overlay *o, const struct snapshot_dirs *s, struct mount_list *l)
{
    _cleanup_(strv_freep) char **options = NULL;
    _free_ char *work = str_printf("workdir=%s/%lld/work", o->dirs, (long long)s->dir);
    _free_ char *upper = str_printf("upperdir=%s/%lld/fs", o->dirs, (long long)s->dir);
    _free_ char *lower = NULL;
    int r;

    r = work && upper ? lower_option(o, s, &lower) : -ENOMEM;
    for (char *const *p = o->mount_options; p && *p && r >= 0; p++)
        r = strv_push(&options, *p);
    if (r >= 0 && o->index_off)
        r = strv_push(&options, "index=off");
    if (r >= 0 && o->user_xattr)
        r = strv_push(&options, "userxattr");
    if (r >= 0 && s->kind == SNAPSHOT_ACTIVE)
        r = strv_push(&options, work);
    if (r >= 0 && s->kind == SNAPSHOT_ACTIVE)
        r = strv_push(&options, upper);
    if (r >= 0)
        r = strv_push(&options, lower);
    return r < 0 ? r : mount_list_add(l, "overlay", "overlay", NULL, options);
}

static int overlay_mounts(void *state, const struct snapshot_dirs *s, struct mount_list *ret,
                          struct err *e)
{
    _cleanup_(mount_list_done) struct mount_list l = {};
    struct overlay *o = state;
    int r;

    if (s->n_parents > OVERLAY_LOWER_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "overlayfs takes at most %d layers, not %zu: invalid argument",
                       OVERLAY_LOWER_MAX, s->n_parents);
    if (s->n_parents == 0)
        r = add_bind(o, s->dir, s->kind == SNAPSHOT_ACTIVE, &l);
    else if (s->n_parents == 1 && s->kind == SNAPSHOT_VIEW)
        r = add_bind(o, s->parents[0], false, &l);
    else
        r = add_overlay(o, s, &l);
    if (r < 0)
        return err_oom(e);
    *ret = l;
    l = (struct mount_list){};
    return 0;
}

static int overlay_usage(void *state, const struct snapshot_dirs *s, int64_t *ret_bytes,
                         int64_t *ret_inodes, struct err *e)
{
    struct overlay *o = state;
    char name[DIR_NAME_MAX];
    int r;

    dir_name(s->dir, "/fs", name);
    r = fs_usage(o->dirs_fd, name, ret_bytes, ret_inodes);
    return r < 0 ? disk_error(e, r, "usage of %s/%s", o->dirs, name) : 0;
}

static int overlay_sync(void *state, const struct snapshot_dirs *s, struct err *e)
{
    struct overlay *o = state;
    int r = neg_errno(syncfs(o->dirs_fd));

    return r < 0 ? disk_error(e, r, "sync %s", o->dirs) : 0;
}

static int overlay_label(void *state, int64_t dir, struct strmap *labels)
{
    struct overlay *o = state;
    _free_ char *upper = NULL;

    if (!o->upperdir_label)
        return 0;
    upper = str_printf("%s/%lld/fs", o->dirs, (long long)dir);
    return upper ? strmap_set(labels, SNAPSHOT_LABEL_UPPERDIR, upper) : -ENOMEM;
}

const struct snapshotter_ops snapshotter_overlay = {
    .name = "overlayfs",
    .init = overlay_init,
    .done = overlay_done,
    .create = overlay_create,
    .mounts = overlay_mounts,
    .usage = overlay_usage,
    .sync = overlay_sync,
    .label = overlay_label,
};

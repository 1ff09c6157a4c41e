/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/tree.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/xattrs.h"

#define WRITEBACK_MIN (64 * 1024) /* bytes of a file whose way to the disk is begun at once */

void tree_init(struct tree *t, int root_fd, enum whiteouts whiteouts)
{
    *t = (struct tree){
        .root_fd = root_fd, .whiteouts = whiteouts, .may_mknod = true, .cached_fd = -EBADF};
}

void tree_done(struct tree *t)
{
    tree_forget(t);
    for (size_t i = 0; i < t->n_dirs; i++)
        free(t->dirs[i].path);
    free(t->dirs);
    free(t->own);
}

static int set_xattrs(struct tree *t, const struct tree_entry *entry, int fd, struct err *e)
{
    for (size_t i = 0; i < entry->n_xattrs; i++) {
        const struct tree_xattr *x = &entry->xattrs[i];
        if (!xattrs_belong_to_layers(x->name))
            continue;
        if (fsetxattr(fd, x->name, x->value, x->len, 0) == 0)
            continue;
        if (errno != ENOTSUP && !(errno == EPERM && geteuid() != 0))
            return tree_fail(e, -errno, "set an extended attribute of", entry->path);
        if (!t->warned_xattr)
            log_warn("extended attributes are not supported here and are left out");
        t->warned_xattr = true;
    }
    return 0;
}

/* Owner before mode: changing the owner takes the set-id bits away. */
static int set_owner_mode(const struct tree_entry *entry, int fd, struct err *e)
{
    if (fchown(fd, entry->uid, entry->gid) < 0 && (errno != EPERM || geteuid() == 0))
        return tree_fail(e, -errno, "change the owner of", entry->path);
    if (fchmod(fd, entry->mode & 07777) < 0)
        return tree_fail(e, -errno, "change the mode of", entry->path);
    return 0;
}

/* Where an entry goes. */
struct place {
    int dir_fd; /* borrowed from the cache of the tree */
    const char *name;
    const char *clean; /* the whole name, for sentences */
    bool replaced;     /* something was removed for it ... */
    bool was_whiteout; /* ... which was a marker of overlayfs */
};

static int make_room(struct place *p, struct err *e)
{
    struct stat st;

    if (fstatat(p->dir_fd, p->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : tree_fail(e, -errno, "look at", p->clean);
    int r = S_ISDIR(st.st_mode) ? fs_rm_rf(p->dir_fd, p->name)
                                : neg_errno(unlinkat(p->dir_fd, p->name, 0));
    if (r == -EXDEV)
        return err_set(e, ERR_FAILED_PRECONDITION, "replace \"%s\": it is a mount point", p->clean);
    if (r < 0)
        return tree_fail(e, r, "replace", p->clean);
    p->replaced = true;
    p->was_whiteout = S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
    return 0;
}

/* For `do r = ...; while (is_blocked(p, &r, e));`: whether something was in the way and is not any
 * more. ERR_RETURN in *r: it could not be removed, e says why. */
static bool is_blocked(struct place *p, int *r, struct err *e)
{
    if (*r != -EEXIST || p->replaced)
        return false;
    if (make_room(p, e) == 0)
        return true;
    *r = ERR_RETURN;
    return false;
}

static int place_fail(struct err *e, int r, const char *what, const struct place *p)
{
    return r == ERR_RETURN ? r : tree_fail(e, r, what, p->clean);
}

static int remember_times(struct tree *t, const char *clean, const struct timespec times[2],
                          struct err *e)
{
    if (t->n_dirs == t->dirs_allocated) {
        size_t n = t->dirs_allocated ? t->dirs_allocated * 2 : 256;
        struct tree_dir_times *dirs = reallocarray(t->dirs, n, sizeof(*dirs));
        if (!dirs)
            return err_oom(e);
        t->dirs = dirs;
        t->dirs_allocated = n;
    }
    struct tree_dir_times *d = &t->dirs[t->n_dirs];
    d->path = strdup(clean);
    if (!d->path)
        return err_oom(e);
    d->times[0] = times[0];
    d->times[1] = times[1];
    t->n_dirs++;
    return 0;
}

static int add_directory(struct tree *t, const struct tree_entry *entry, struct place *p,
                         struct err *e)
{
    struct stat st;
    int r;

    do {
        r = neg_errno(mkdirat(p->dir_fd, p->name, 0700));
        if (r == -EEXIST && fstatat(p->dir_fd, p->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISDIR(st.st_mode))
            r = 0;
    } while (is_blocked(p, &r, e));
    if (r < 0)
        return place_fail(e, r, "make directory", p);

    _close_ int fd =
        neg_errno(openat(p->dir_fd, p->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return tree_fail(e, fd, "open directory", p->clean);
    if ((r = set_owner_mode(entry, fd, e)) < 0 || (r = set_xattrs(t, entry, fd, e)) < 0)
        return r;
    /* The layer takes away what was below and brings a directory: only the latter is seen. */
    if (p->was_whiteout && t->whiteouts != WHITEOUTS_PLAIN &&
        (r = tree_mark_opaque(t, p->dir_fd, p->name, p->clean, e)) < 0)
        return r;
    return remember_times(t, p->clean, entry->times, e);
}

static int add_file(const struct tree_entry *entry, struct place *p, int *ret_fd, struct err *e)
{
    int fd;

    if (entry->size > TREE_FILE_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "a file of the layer is larger than 16 TiB");
    do
        fd = neg_errno(
            openat(p->dir_fd, p->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    while (is_blocked(p, &fd, e));
    if (fd < 0)
        return place_fail(e, fd, "create", p);
    *ret_fd = fd;
    return 1;
}

/* Owner and times of what has no fd to go through: a link, or a file that does things when it is
 * opened. The name is ours, made a moment ago in a directory held by fd. */
static int set_owner_times(const struct tree_entry *entry, const struct place *p, struct err *e)
{
    if (fchownat(p->dir_fd, p->name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0 &&
        (errno != EPERM || geteuid() == 0))
        return tree_fail(e, -errno, "change the owner of", p->clean);
    if (!S_ISLNK(entry->mode) && fchmodat(p->dir_fd, p->name, entry->mode & 07777, 0) < 0)
        return tree_fail(e, -errno, "change the mode of", p->clean);
    if (utimensat(p->dir_fd, p->name, entry->times, AT_SYMLINK_NOFOLLOW) < 0)
        return tree_fail(e, -errno, "set the times of", p->clean);
    return 0;
}

static int add_symlink(const struct tree_entry *entry, struct place *p, struct err *e)
{
    int r;

    if (str_empty(entry->link) || strlen(entry->link) >= TREE_PATH_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "symbolic link \"%s\" has no usable target",
                       p->clean);
    do
        r = neg_errno(symlinkat(entry->link, p->dir_fd, p->name));
    while (is_blocked(p, &r, e));
    if (r < 0)
        return place_fail(e, r, "make symbolic link", p);
    return set_owner_times(entry, p, e);
}

static int add_hardlink(struct tree *t, const struct tree_entry *entry, struct place *p,
                        struct err *e)
{
    char target[TREE_PATH_MAX + 1];
    struct stat st;

    int r = tree_clean(str_or_empty(entry->link), target, e);
    if (r < 0)
        return r;
    if (!*target || str_eq(target, p->clean))
        return err_set(e, ERR_INVALID_ARGUMENT, "hard link \"%s\" has no usable target", p->clean);
    char *slash = strrchr(target, '/');
    const char *base = slash ? slash + 1 : target;
    if (slash)
        *slash = 0;
    _close_ int target_fd = tree_open_existing(t, slash ? target : "");
    if (target_fd < 0 || fstatat(target_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0)))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "hard link \"%s\": there is no \"%s\" in the layer to link to", p->clean,
                       entry->link);
    if (S_ISDIR(st.st_mode))
        return err_set(e, ERR_INVALID_ARGUMENT, "hard link \"%s\" points to a directory", p->clean);
    do
        r = neg_errno(linkat(target_fd, base, p->dir_fd, p->name, 0));
    while (is_blocked(p, &r, e));
    return r < 0 ? place_fail(e, r, "make hard link", p) : 0;
}

static int add_special(struct tree *t, const struct tree_entry *entry, struct place *p,
                       struct err *e)
{
    bool is_device = S_ISCHR(entry->mode) || S_ISBLK(entry->mode);
    int r;

    if (S_ISCHR(entry->mode) && entry->rdev == makedev(0, 0) && t->whiteouts != WHITEOUTS_PLAIN)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "\"%s\" is a device 0:0, which would act as a whiteout", p->clean);
    if (is_device && !t->may_mknod) {
        log_warn("device node left out: %s", p->clean);
        return 0;
    }
    do
        r = neg_errno(mknodat(p->dir_fd, p->name, (entry->mode & S_IFMT) | 0600,
                              is_device ? entry->rdev : 0));
    while (is_blocked(p, &r, e));
    if (r < 0)
        return place_fail(e, r, "make special file", p);
    return set_owner_times(entry, p, e);
}

static int add_at(struct tree *t, const struct tree_entry *entry, struct place *p, int *ret_fd,
                  struct err *e)
{
    if (entry->is_hardlink)
        return add_hardlink(t, entry, p, e);
    switch (entry->mode & S_IFMT) {
    case S_IFREG:
        return add_file(entry, p, ret_fd, e);
    case S_IFDIR:
        return add_directory(t, entry, p, e);
    case S_IFLNK:
        return add_symlink(entry, p, e);
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
        return add_special(t, entry, p, e);
    default:
        return err_set(e, ERR_INVALID_ARGUMENT, "\"%s\" is of a type that layers cannot hold",
                       p->clean);
    }
}

static int add_root(const struct tree_entry *entry, struct err *e)
{
    /* A root that is a link would move everything that follows. Its owner and mode are left to
     * whoever made the target. */
    if (entry->is_hardlink || !S_ISDIR(entry->mode))
        return err_set(e, ERR_INVALID_ARGUMENT, "the root entry of the layer is not a directory");
    return 0;
}

int tree_add(struct tree *t, const struct tree_entry *entry, int *ret_fd, struct err *e)
{
    char clean[TREE_PATH_MAX + 1];
    char dir[TREE_PATH_MAX + 1];
    enum whiteout_kind kind;

    int r = tree_clean(entry->path, clean, e);
    if (r < 0)
        return r;
    if (!*clean)
        return add_root(entry, e);
    r = tree_whiteout_kind(clean, &kind, e);
    if (r < 0 || kind == WHITEOUT_SKIP)
        return r;
    if (kind != WHITEOUT_NONE)
        return tree_add_whiteout(t, clean, kind, e);

    memcpy(dir, clean, strlen(clean) + 1);
    char *slash = strrchr(dir, '/');
    struct place p = {
        .name = slash ? clean + (slash + 1 - dir) : clean,
        .clean = clean,
    };
    *(slash ? slash : dir) = 0;
    p.dir_fd = tree_open_parent(t, dir, e);
    if (p.dir_fd < 0)
        return p.dir_fd;
    if ((r = tree_remember_own(t, clean, e)) < 0)
        return r;
    r = add_at(t, entry, &p, ret_fd, e);
    /* What was remembered as a parent may have been what was removed. */
    if (p.replaced)
        tree_forget(t);
    return r;
}

int tree_close_file(struct tree *t, const struct tree_entry *entry, int fd, struct err *e)
{
    _close_ int own_fd = fd;
    struct stat st;
    int r;

    /* A hole at the end is only there once the size is. */
    if (fstat(own_fd, &st) < 0 || (st.st_size < entry->size && ftruncate(own_fd, entry->size) < 0))
        return tree_fail(e, -errno, "set the size of", entry->path);
    if ((r = set_owner_mode(entry, own_fd, e)) < 0 || (r = set_xattrs(t, entry, own_fd, e)) < 0)
        return r;
    /* Whoever commits the tree makes it durable, which is short when the disk has been busy all
     * along. */
    if (entry->size >= WRITEBACK_MIN)
        (void)sync_file_range(own_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    if (futimens(own_fd, entry->times) < 0)
        return tree_fail(e, -errno, "set the times of", entry->path);
    return 0;
}

int tree_finish(struct tree *t, bool sync, struct err *e)
{
    for (size_t i = 0; i < t->n_dirs; i++) {
        const struct tree_dir_times *d = &t->dirs[i];
        _close_ int fd = fs_open_beneath(t->root_fd, d->path,
                                         O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK, 0);
        if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
            continue; /* replaced by a later entry */
        if (fd < 0 || futimens(fd, d->times) < 0)
            return tree_fail(e, fd < 0 ? fd : -errno, "set the times of", d->path);
    }
    if (sync && syncfs(t->root_fd) < 0)
        return tree_fail(e, -errno, "write to disk", ".");
    return 0;
}

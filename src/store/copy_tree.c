/* SPDX-License-Identifier: Apache-2.0 */
#include "store/copy_tree.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/walk.h"

#define XATTR_NAMES_MAX 65536 /* XATTR_LIST_MAX of the kernel */
#define XATTR_VALUE_MAX 65536 /* XATTR_SIZE_MAX of the kernel */
#define LINK_KEY_MAX 40
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

struct copy {
    struct walk from;
    int root_fd;      /* of the copy */
    int dir_fd;       /* where we are in it */
    struct buf path;  /* of dir_fd below root_fd, with '/' behind each component */
    struct map links; /* "<dev>:<ino>" -> where in the copy the first name is, malloc'ed */
};

/* Paths in /proc, since there are no *xattrat() calls: `name` in a directory, itself if a link. */
static void proc_path(int dir_fd, const char *name, char *out, size_t size)
{
    snprintf(out, size, "/proc/self/fd/%d/%s", dir_fd, name);
}

static int copy_xattr(const char *from, const char *to, const char *name, char *value)
{
    ssize_t n = lgetxattr(from, name, value, XATTR_VALUE_MAX);

    if (n < 0)
        return errno == ENODATA ? 0 : -errno;
    if (lsetxattr(to, name, value, (size_t)n, 0) == 0)
        return 0;
    /* Labels of a security module that is not asked to take them, and the like. */
    return errno == EOPNOTSUPP ? 0 : -errno;
}

static int copy_xattrs(int from_fd, int to_fd, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    _free_ char *names = NULL;
    _free_ char *value = NULL;
    ssize_t n;
    int r = 0;

    proc_path(from_fd, name, from, sizeof(from));
    n = llistxattr(from, NULL, 0);
    if (n <= 0)
        return n < 0 && errno != EOPNOTSUPP ? -errno : 0;
    names = malloc(XATTR_NAMES_MAX);
    value = malloc(XATTR_VALUE_MAX);
    if (!names || !value)
        return -ENOMEM;
    n = llistxattr(from, names, XATTR_NAMES_MAX);
    if (n < 0)
        return -errno;
    proc_path(to_fd, name, to, sizeof(to));
    for (const char *at = names; at < names + n && r >= 0; at += strlen(at) + 1)
        r = copy_xattr(from, to, at, value);
    return r;
}

/* Owner before mode (chown drops setuid), attributes after it (some depend on the owner), times
 * last. */
static int copy_looks(int from_fd, int to_fd, const char *name, const struct stat *st)
{
    struct timespec times[] = {st->st_atim, st->st_mtim};
    int r;

    r = neg_errno(fchownat(to_fd, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW));
    if (r >= 0 && !S_ISLNK(st->st_mode))
        r = neg_errno(fchmodat(to_fd, name, st->st_mode & 07777, 0));
    if (r >= 0)
        r = copy_xattrs(from_fd, to_fd, name);
    if (r >= 0)
        r = neg_errno(utimensat(to_fd, name, times, AT_SYMLINK_NOFOLLOW));
    return r;
}

static int copy_range(int from_fd, int to_fd, off_t at, off_t end)
{
    while (at < end) {
        off_t out = at;
        ssize_t n = copy_file_range(from_fd, &at, to_fd, &out, (size_t)(end - at), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
    }
    return 0;
}

/* Shares the blocks if it can, else copies what is not a hole. */
static int copy_bytes(int from_fd, int to_fd, off_t size)
{
    off_t at = 0, end;
    int r = 0;

    if (size == 0 || ioctl(to_fd, FICLONE, from_fd) == 0)
        return 0;
    r = neg_errno(ftruncate(to_fd, size));
    while (r >= 0 && at < size) {
        at = lseek(from_fd, at, SEEK_DATA);
        if (at < 0) /* ENXIO: nothing but a hole from here */
            return errno == ENXIO ? 0 : -errno;
        end = lseek(from_fd, at, SEEK_HOLE);
        if (end < 0)
            return -errno;
        r = copy_range(from_fd, to_fd, at, end);
        at = end;
    }
    return r;
}

static int copy_file(struct copy *c, const char *name, const struct stat *st)
{
    _close_ int from_fd = -EBADF;
    _close_ int to_fd = -EBADF;

    from_fd = neg_errno(openat(c->from.fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (from_fd < 0)
        return from_fd;
    to_fd = neg_errno(
        openat(c->dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (to_fd < 0)
        return to_fd;
    return copy_bytes(from_fd, to_fd, st->st_size);
}

static int copy_link(struct copy *c, const char *name)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(c->from.fd, name, target, sizeof(target) - 1);

    if (n < 0)
        return -errno;
    target[n] = '\0';
    return neg_errno(symlinkat(target, c->dir_fd, name));
}

/* 1: `name` is another name of a file copied before, and now is that in the copy. Paths that are
 * too long to be named again make copies. */
static int copy_hard_link(struct copy *c, const char *name, const struct stat *st)
{
    char key[LINK_KEY_MAX];
    const char *first;
    char *path;
    int r;

    if (st->st_nlink < 2)
        return 0;
    snprintf(key, sizeof(key), "%llx:%llx", (unsigned long long)st->st_dev,
             (unsigned long long)st->st_ino);
    first = map_get(&c->links, key);
    if (first)
        return linkat(c->root_fd, first, c->dir_fd, name, 0) < 0 ? -errno : 1;
    if (c->path.len + strlen(name) >= PATH_MAX)
        return 0;
    if (asprintf(&path, "%.*s%s", (int)c->path.len, (const char *)buf_head(&c->path), name) < 0)
        return -ENOMEM;
    r = map_add(&c->links, key, path);
    if (r < 0)
        free(path);
    return r;
}

static int copy_entry(struct copy *c, const char *name)
{
    struct stat st;
    int r;

    if (fstatat(c->from.fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    r = copy_hard_link(c, name, &st);
    if (r != 0)
        return r < 0 ? r : 0;
    if (S_ISREG(st.st_mode))
        r = copy_file(c, name, &st);
    else if (S_ISLNK(st.st_mode))
        r = copy_link(c, name);
    else
        r = neg_errno(mknodat(c->dir_fd, name, (st.st_mode & S_IFMT) | 0600, st.st_rdev));
    return r < 0 ? r : copy_looks(c->from.fd, c->dir_fd, name, &st);
}

static int enter(struct copy *c, const char *name)
{
    int fd, r;

    r = neg_errno(mkdirat(c->dir_fd, name, 0700));
    if (r < 0)
        return r;
    fd = neg_errno(openat(c->dir_fd, name, OPEN_DIR));
    if (fd < 0)
        return fd;
    close_fd(&c->dir_fd);
    c->dir_fd = fd;
    r = buf_printf(&c->path, "%s/", name);
    return r < 0 ? r : walk_enter(&c->from);
}

/* Up again; now that nothing more is put into it, the directory gets its looks. */
static int leave(struct copy *c, const char *name)
{
    struct stat st;
    int fd = neg_errno(openat(c->dir_fd, "..", OPEN_DIR));

    if (fd < 0)
        return fd;
    close_fd(&c->dir_fd);
    c->dir_fd = fd;
    c->path.len -= strlen(name) + 1;
    if (fstatat(c->from.fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    return copy_looks(c->from.fd, c->dir_fd, name, &st);
}

static int copy_all(struct copy *c)
{
    struct walk_entry entry;
    int r;

    while ((r = walk_next(&c->from, &entry)) > 0) {
        if (entry.event == WALK_LEFT)
            r = leave(c, entry.name);
        else if (entry.is_dir)
            r = enter(c, entry.name);
        else
            r = copy_entry(c, entry.name);
        if (r < 0)
            return r;
    }
    return r;
}

static void copy_done(struct copy *c)
{
    walk_done(&c->from);
    close_fd(&c->root_fd);
    close_fd(&c->dir_fd);
    buf_done(&c->path);
    MAP_FOREACH (entry, &c->links)
        free(entry->value);
    map_done(&c->links);
}

int copy_tree(int from_fd, const char *from, int to_fd, const char *to)
{
    struct copy c = {.root_fd = -EBADF, .dir_fd = -EBADF, .path = BUF_INIT(64 << 20)};
    _close_ int source_fd = -EBADF;
    struct stat st;
    int r;

    r = walk_init(&c.from, from_fd, from);
    if (r < 0)
        return r;
    c.root_fd = neg_errno(openat(to_fd, to, OPEN_DIR));
    c.dir_fd = c.root_fd < 0 ? c.root_fd : neg_errno(openat(c.root_fd, ".", OPEN_DIR));
    r = c.dir_fd < 0 ? c.dir_fd : copy_all(&c);
    if (r >= 0)
        r = source_fd = neg_errno(openat(from_fd, from, OPEN_DIR));
    if (r >= 0)
        r = neg_errno(fstat(source_fd, &st));
    if (r >= 0)
        r = copy_looks(source_fd, c.root_fd, ".", &st);
    copy_done(&c);
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Names to directory fds. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "base/fs.h"
#include "base/str.h"
#include "worker/tree.h"

#define DIR_FLAGS (O_PATH | O_DIRECTORY)

int tree_clean(const char *path, char *out, struct err *e)
{
    size_t len = 0, depth = 0;

    if (strlen(path) > TREE_PATH_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "a name of the layer is longer than %d bytes",
                       TREE_PATH_MAX);
    for (const char *s = path; *s;) {
        size_t n = strcspn(s, "/");
        if (n == 2 && s[0] == '.' && s[1] == '.') {
            while (len > 0 && out[--len] != '/')
                continue;
            depth -= depth > 0;
        } else if (n > 0 && !(n == 1 && s[0] == '.')) {
            if (n > TREE_NAME_MAX)
                return err_set(e, ERR_INVALID_ARGUMENT,
                               "a component of a name of the layer is longer than %d bytes",
                               TREE_NAME_MAX);
            if (++depth > TREE_DEPTH_MAX)
                return err_set(e, ERR_INVALID_ARGUMENT,
                               "a name of the layer is more than %d directories deep",
                               TREE_DEPTH_MAX);
            if (len > 0)
                out[len++] = '/';
            memcpy(out + len, s, n);
            len += n;
        }
        s += n;
        s += strspn(s, "/");
    }
    out[len] = 0;
    return 0;
}

int tree_fail(struct err *e, int r, const char *what, const char *path)
{
    _free_ char *quoted = str_quote(path);
    err_errno(e, r, "%s %s", what, quoted ? quoted : "a file");
    if (e && (r == -ENOSPC || r == -EDQUOT || r == -ENOMEM))
        e->code = ERR_RESOURCE_EXHAUSTED;
    return ERR_RETURN;
}

void tree_forget(struct tree *t)
{
    free(t->cached_path);
    t->cached_path = NULL;
    close_fd(&t->cached_fd);
}

int tree_open_existing(struct tree *t, const char *path)
{
    return fs_open_beneath(t->root_fd, *path ? path : ".", DIR_FLAGS, 0);
}

/* `path` holds no link any more. */
static int open_resolved(struct tree *t, const char *path)
{
    struct open_how how = {
        .flags = DIR_FLAGS | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)neg_errno(syscall(SYS_openat2, t->root_fd, *path ? path : ".", &how, sizeof(how)));
}

static bool may_inherit_xattr(const char *name)
{
    return str_after_prefix(name, "user.") && !str_after_prefix(name, "user.overlay.");
}

/* user. xattrs of a lower directory; what the filesystem cannot hold is left out. */
static void copy_xattrs(int from_fd, int to_fd)
{
    char names[4096], value[4096];

    ssize_t n = flistxattr(from_fd, names, sizeof(names));
    for (const char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
        if (!may_inherit_xattr(name))
            continue;
        ssize_t len = fgetxattr(from_fd, name, value, sizeof(value));
        if (len >= 0)
            (void)!fsetxattr(to_fd, name, value, (size_t)len, 0);
    }
}

/* A directory the layer only implies looks like the one in the nearest lower layer that has it. */
static int inherit_from_parents(struct tree *t, int dir_fd, const char *name, const char *path)
{
    struct stat st;

    for (size_t i = 0; i < t->n_parents; i++) {
        _close_ int from_fd =
            fs_open_beneath(t->parent_fds[i], path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
        if (from_fd == -ENOENT)
            continue;
        if (from_fd < 0 || fstat(from_fd, &st) < 0 || !S_ISDIR(st.st_mode))
            return 0; /* something else stands there: the new directory replaces it */
        _close_ int to_fd =
            neg_errno(openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (to_fd < 0)
            return to_fd;
        if (fchown(to_fd, st.st_uid, st.st_gid) < 0 || fchmod(to_fd, st.st_mode & 07777) < 0)
            return -errno;
        copy_xattrs(from_fd, to_fd);
        return 0;
    }
    return 0;
}

/* Where a walk stands: a path without links, and its fd. */
struct standing {
    char path[2 * TREE_PATH_MAX];
    int fd;
};

static int stand_at(struct tree *t, struct standing *at, const char *path)
{
    int fd = open_resolved(t, path);
    if (fd < 0)
        return fd;
    close_fd(&at->fd);
    at->fd = fd;
    if (path != at->path)
        snprintf(at->path, sizeof(at->path), "%s", path);
    return 0;
}

static int step_up(struct tree *t, struct standing *at)
{
    char *slash = strrchr(at->path, '/');
    *(slash ? slash : at->path) = 0;
    return stand_at(t, at, at->path);
}

/* Into the directory `name`, which is made when nothing is there. 1: it is a link, its text in
 * link. */
static int step_down(struct tree *t, struct standing *at, const char *name, char *link,
                     size_t link_size)
{
    size_t len = strlen(at->path);
    int n = snprintf(at->path + len, sizeof(at->path) - len, "%s%s", len ? "/" : "", name);
    if (n < 0 || (size_t)n >= sizeof(at->path) - len)
        return -ENAMETOOLONG;

    bool made = mkdirat(at->fd, name, 0755) == 0;
    if (!made && errno != EEXIST)
        return -errno;
    if (made) {
        int r = inherit_from_parents(t, at->fd, name, at->path);
        if (r < 0)
            return r;
    }
    int fd = neg_errno(openat(at->fd, name, DIR_FLAGS | O_NOFOLLOW | O_CLOEXEC));
    if (fd >= 0) {
        close_fd(&at->fd);
        at->fd = fd;
        return 0;
    }
    at->path[len] = 0;
    ssize_t link_len = readlinkat(at->fd, name, link, link_size - 1);
    if (link_len < 0)
        return -ENOTDIR;
    link[link_len] = 0;
    return 1;
}

/* Component by component, links and missing directories included. */
static int walk_making(struct tree *t, const char *path, int *ret_fd)
{
    char rest[2 * TREE_PATH_MAX];
    char link[TREE_PATH_MAX + 1];
    char name[TREE_NAME_MAX + 1];
    struct standing at = {.fd = -EBADF};
    unsigned links = 0;

    snprintf(rest, sizeof(rest), "%s", path);
    int r = stand_at(t, &at, "");
    char *s = rest;
    while (r >= 0) {
        s += strspn(s, "/");
        size_t n = strcspn(s, "/");
        if (n == 0)
            break;
        if (n > TREE_NAME_MAX) {
            r = -ENAMETOOLONG;
            break;
        }
        memcpy(name, s, n);
        name[n] = 0;
        s += n;
        if (str_eq(name, "."))
            continue;
        if (str_eq(name, "..")) {
            r = step_up(t, &at);
            continue;
        }
        r = step_down(t, &at, name, link, sizeof(link));
        if (r != 1)
            continue;
        if (++links > TREE_LINKS_MAX) {
            r = -ELOOP;
            break;
        }
        size_t rest_len = strlen(s), link_len = strlen(link);
        if (link_len + rest_len + 1 > sizeof(rest)) {
            r = -ENAMETOOLONG;
            break;
        }
        memmove(rest + link_len, s, rest_len + 1);
        memcpy(rest, link, link_len);
        s = rest;
        r = *link == '/' ? stand_at(t, &at, "") : 0;
    }
    if (r >= 0)
        *ret_fd = TAKE_FD(at.fd);
    close_fd(&at.fd);
    return r < 0 ? r : 0;
}

int tree_open_parent(struct tree *t, const char *path, struct err *e)
{
    if (t->cached_path && str_eq(t->cached_path, path))
        return t->cached_fd;

    int fd = tree_open_existing(t, path);
    if (fd == -ENOENT) {
        int r = walk_making(t, path, &fd);
        if (r < 0)
            fd = r;
    }
    if (fd == -ENOTDIR || fd == -ELOOP || fd == -ENAMETOOLONG) {
        _free_ char *quoted = str_quote(path);
        return err_set(e, ERR_INVALID_ARGUMENT, "parent directory %s of an entry: %s",
                       str_or_empty(quoted), err_strerror(fd));
    }
    if (fd < 0)
        return tree_fail(e, fd, "make directory", path);

    char *copy = strdup(path);
    if (!copy) {
        close(fd);
        return err_oom(e);
    }
    tree_forget(t);
    t->cached_path = copy;
    t->cached_fd = fd;
    return fd;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/layers.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/fs.h"
#include "base/str.h"

#define LINKS_MAX 40
#define PATH_BYTES_MAX 4096

void layers_done(struct layers *l)
{
    for (size_t i = 0; i < l->n; i++)
        close_fd(&l->fds[i]);
    free(l->fds);
    *l = (struct layers){};
}

static int push(struct layers *l, int fd)
{
    int *fds;

    if (l->n >= LAYERS_MAX)
        return -ENOBUFS;
    fds = reallocarray(l->fds, l->n + 1, sizeof(*fds));
    if (!fds)
        return -ENOMEM;
    l->fds = fds;
    l->fds[l->n++] = fd;
    return 0;
}

static int push_path(struct layers *l, const char *path)
{
    _close_ int fd = neg_errno(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    int r;

    if (fd < 0)
        return fd;
    r = push(l, fd);
    if (r == 0)
        TAKE_FD(fd);
    return r;
}

int layers_from_dir(int dir_fd, struct layers *ret)
{
    struct layers l = {};
    int r = push(&l, dir_fd);

    if (r == 0)
        *ret = l;
    return r;
}

/* lowerdir=a:b:c, in which "\:" is a colon of a name. */
static int push_lower(struct layers *l, const char *list)
{
    _free_ char *name = malloc(strlen(list) + 1);
    size_t n = 0;
    int r = 0;

    if (!name)
        return -ENOMEM;
    for (;; list++) {
        if (*list == '\\' && list[1]) {
            name[n++] = *++list;
            continue;
        }
        if (*list && *list != ':') {
            name[n++] = *list;
            continue;
        }
        name[n] = '\0';
        r = n > 0 ? push_path(l, name) : 0;
        if (r < 0 || !*list)
            return r;
        n = 0;
    }
}

static int open_overlay(const struct mount *m, struct layers *l)
{
    const char *upper = NULL, *lower = NULL;
    int r = 0;

    for (char **o = m->options; o && *o; o++) {
        const char *value = str_after_prefix(*o, "upperdir=");
        if (value)
            upper = value;
        value = str_after_prefix(*o, "lowerdir=");
        if (value)
            lower = value;
    }
    if (!lower)
        return -EOPNOTSUPP;
    if (upper)
        r = push_path(l, upper);
    return r < 0 ? r : push_lower(l, lower);
}

int layers_open(const struct mount_list *mounts, struct layers *ret)
{
    _cleanup_(layers_done) struct layers l = {};
    const struct mount *m = mounts->mounts;
    int r = -EOPNOTSUPP;

    if (mounts->n != 1)
        return r;
    if (str_eq(m->type, "overlay"))
        r = open_overlay(m, &l);
    else if (str_eq(m->type, "bind"))
        r = push_path(&l, m->source);
    if (r < 0)
        return r;
    *ret = l;
    l = (struct layers){};
    return 0;
}

static bool is_opaque(int fd)
{
    static const char *const names[] = {"trusted.overlay.opaque", "user.overlay.opaque"};
    char path[32], value[4];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd); /* an O_PATH fd takes no fgetxattr(2) */
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (getxattr(path, names[i], value, sizeof(value)) == 1 && value[0] == 'y')
            return true;
    }
    return false;
}

/* What a name is in a merged directory: a directory (the fds of `sub`), or else a file of layer
 * *ret_at. */
static int look_up(const struct layers *dir, const char *name, struct layers *sub, struct stat *st,
                   int *ret_at)
{
    for (size_t i = 0; i < dir->n; i++) {
        _close_ int fd = -EBADF;
        struct stat s;
        int r;

        if (fstatat(dir->fds[i], name, &s, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT || errno == ENOTDIR)
                continue;
            return -errno;
        }
        if (!S_ISDIR(s.st_mode)) {
            if (sub->n > 0)
                break;
            if (S_ISCHR(s.st_mode) && s.st_rdev == makedev(0, 0))
                return -ENOENT; /* a whiteout */
            *st = s;
            *ret_at = dir->fds[i];
            return 0;
        }
        fd = neg_errno(openat(dir->fds[i], name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (fd < 0)
            return fd;
        r = push(sub, fd);
        if (r < 0)
            return r;
        *st = s;
        if (is_opaque(TAKE_FD(fd)))
            break;
    }
    return sub->n > 0 ? 0 : -ENOENT;
}

static int open_regular(int dir_fd, const char *name, int *ret_fd)
{
    _close_ int fd =
        neg_errno(openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    struct stat st;

    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* Walks the clean, absolute path. 0: opened; 1: a link was met and *ret_path is where to go on. */
static int walk_path(const struct layers *root, const char *path, int *ret_fd, char **ret_path)
{
    _cleanup_(layers_done) struct layers current = {};
    const struct layers *dir = root;
    const char *at = path + 1;

    while (*at) {
        _cleanup_(layers_done) struct layers sub = {};
        size_t n = strcspn(at, "/");
        _free_ char *name = strndup(at, n);
        const char *rest = at + n;
        struct stat st = {};
        int at_fd = -EBADF, r;

        if (!name)
            return -ENOMEM;
        r = look_up(dir, name, &sub, &st, &at_fd);
        if (r < 0)
            return r;
        if (S_ISLNK(st.st_mode)) {
            char target[PATH_BYTES_MAX];
            ssize_t len = readlinkat(at_fd, name, target, sizeof(target) - 1);
            _free_ char *next = NULL;

            if (len <= 0)
                return len < 0 ? -errno : -ENOENT;
            target[len] = '\0';
            next = target[0] == '/' ? str_printf("%s%s", target, rest)
                                    : str_printf("%.*s%s%s", (int)(at - path), path, target, rest);
            if (!next)
                return -ENOMEM;
            *ret_path = fs_clean_path(next);
            return *ret_path ? 1 : -ENOMEM;
        }
        if (!S_ISDIR(st.st_mode))
            return *rest ? -ENOTDIR : open_regular(at_fd, name, ret_fd);
        layers_done(&current);
        current = sub;
        sub = (struct layers){};
        dir = &current;
        at = *rest ? rest + 1 : rest;
    }
    return -EISDIR;
}

int layers_open_file(const struct layers *l, const char *path, int *ret_fd)
{
    _free_ char *absolute = str_printf("/%s", path);
    _free_ char *clean = absolute ? fs_clean_path(absolute) : NULL;

    if (!clean)
        return -ENOMEM;
    for (unsigned links = 0; links <= LINKS_MAX; links++) {
        char *next = NULL;
        int r;

        if (strlen(clean) > PATH_BYTES_MAX)
            return -ENAMETOOLONG;
        r = walk_path(l, clean, ret_fd, &next);
        if (r <= 0)
            return r;
        free(clean);
        clean = next;
    }
    return -ELOOP;
}

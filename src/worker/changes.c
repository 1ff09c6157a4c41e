/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/changes.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "worker/names.h"
#include "worker/same.h"

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* A directory both trees are read in at the moment. */
struct level {
    struct change_dir *dir;
    int left_fd; /* -EBADF: the left tree has no such directory */
    struct names left_names, right_names;
    size_t left, right; /* how many of them are done */
};

struct walk {
    struct level *levels; /* from the root down */
    size_t depth;
    struct same same;
    change_fn fn;
    void *userdata;
    struct err *e;
};

struct change_dir *change_dir_ref(struct change_dir *d)
{
    d->refs++;
    return d;
}

struct change_dir *change_dir_unref(struct change_dir *d)
{
    while (d && --d->refs == 0) {
        struct change_dir *parent = d->parent;
        close_fd(&d->fd);
        free(d);
        d = parent;
    }
    return NULL;
}

static struct change_dir *dir_new(struct change_dir *parent, const char *path)
{
    size_t n = strlen(path) + 1;
    struct change_dir *d = calloc(1, sizeof(*d) + n);

    if (!d)
        return NULL;
    d->refs = 1;
    d->fd = -EBADF;
    d->parent = parent ? change_dir_ref(parent) : NULL;
    memcpy(d->path, path, n);
    return d;
}

static void dir_unrefp(struct change_dir **d)
{
    change_dir_unref(*d);
}

static int unreadable(struct walk *w, int r, const char *path)
{
    return r == ERR_RETURN ? r : tree_fail(w->e, r, "read", *path ? path : "/");
}

static bool has_vanished(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -ESTALE || r == -ENXIO;
}

static void leave(struct walk *w)
{
    struct level *l = &w->levels[--w->depth];

    close_fd(&l->left_fd);
    names_done(&l->left_names);
    names_done(&l->right_names);
    close_fd(&l->dir->fd);
    change_dir_unref(l->dir);
}

/* Takes both. A level is there afterwards in any case. */
static int enter(struct walk *w, struct change_dir *dir, int left_fd)
{
    struct level *l = &w->levels[w->depth++];

    *l = (struct level){.dir = dir, .left_fd = left_fd};
    int r = names_read(&l->right_names, dir->fd);
    if (r >= 0 && left_fd >= 0)
        r = names_read(&l->left_names, left_fd);
    return has_vanished(r) ? 0 : r;
}

/* The next name of the current directory in either tree; NULL when there is none left. */
static const char *next_name(struct level *l, bool *ret_left, bool *ret_right)
{
    const char *left = names_get(&l->left_names, l->left);
    const char *right = names_get(&l->right_names, l->right);
    int order = !left ? 1 : !right ? -1 : strcmp(left, right);

    if (!left && !right)
        return NULL;
    *ret_left = order <= 0;
    *ret_right = order >= 0;
    l->left += *ret_left;
    l->right += *ret_right;
    return *ret_left ? left : right;
}

/* 1 and what is there, 0 for nothing, or what counts as nothing. */
static int look(int dir_fd, const char *name, struct stat *ret)
{
    if (fstatat(dir_fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0)
        return has_vanished(-errno) ? 0 : -errno;
    return !(S_ISCHR(ret->st_mode) && ret->st_rdev == makedev(0, 0));
}

static int join(struct walk *w, const struct level *l, const char *name,
                char out[TREE_PATH_MAX + 1])
{
    int n =
        snprintf(out, TREE_PATH_MAX + 1, "%s%s%s", l->dir->path, *l->dir->path ? "/" : "", name);

    if (n > TREE_PATH_MAX)
        return err_set(w->e, ERR_FAILED_PRECONDITION,
                       "a path of the tree is longer than %d bytes, which no layer can hold",
                       TREE_PATH_MAX);
    return 0;
}

/* Opens the right tree's directory: 1, 0 when it has vanished. */
static int open_dir(struct level *l, const char *name, const char *path, struct change_dir **ret)
{
    _cleanup_(dir_unrefp) struct change_dir *d = dir_new(l->dir, path);

    if (!d)
        return -ENOMEM;
    d->fd = neg_errno(openat(l->dir->fd, name, OPEN_DIR));
    if (d->fd < 0)
        return has_vanished(d->fd) ? 0 : d->fd;
    if (fstat(d->fd, &d->st) < 0)
        return -errno;
    *ret = TAKE(d);
    return 1;
}

static int tell(struct walk *w, struct change *c, const struct stat *left)
{
    const struct level *l = &w->levels[w->depth - 1];
    int same = 0;

    if (left) {
        same = same_file(&w->same, l->left_fd, left, c->dir->fd, c->st, c->name);
        if (has_vanished(same))
            return 0;
        if (same < 0)
            return unreadable(w, same, c->path);
    }
    c->kind = same ? CHANGE_LINKED : CHANGE_SET;
    if (same && (c->as_dir || c->st->st_nlink < 2))
        return 0;
    return w->fn(w->userdata, c, w->e);
}

/* A directory of the right tree: tells of it and goes into it. */
static int visit_dir(struct walk *w, struct change *c, const struct stat *left)
{
    struct level *l = &w->levels[w->depth - 1];
    struct change_dir *dir = NULL;
    int left_fd = -EBADF;
    int r;

    if (w->depth == TREE_DEPTH_MAX)
        return err_set(w->e, ERR_FAILED_PRECONDITION,
                       "the tree is more than %d directories deep, which no layer can hold",
                       TREE_DEPTH_MAX);
    r = open_dir(l, c->name, c->path, &dir);
    if (r <= 0)
        return r < 0 ? unreadable(w, r, c->path) : 0;
    c->st = &dir->st;
    c->as_dir = dir;
    r = tell(w, c, left);
    if (r >= 0 && left && S_ISDIR(left->st_mode)) {
        left_fd = neg_errno(openat(l->left_fd, c->name, OPEN_DIR));
        if (left_fd < 0 && !has_vanished(left_fd))
            r = unreadable(w, left_fd, c->path);
    }
    if (r < 0) {
        change_dir_unref(dir);
        return r;
    }
    r = enter(w, dir, left_fd);
    return r < 0 ? unreadable(w, r, c->path) : 0;
}

static int visit(struct walk *w, const char *name, bool in_left, bool in_right)
{
    struct level *l = &w->levels[w->depth - 1];
    char path[TREE_PATH_MAX + 1];
    struct stat left, right;
    struct change c = {.dir = l->dir, .name = name, .path = path, .st = &right};
    int r = join(w, l, name, path);

    if (r < 0)
        return r;
    r = in_left ? look(l->left_fd, name, &left) : 0;
    in_left = r > 0;
    if (r >= 0)
        r = in_right ? look(l->dir->fd, name, &right) : 0;
    if (r < 0)
        return unreadable(w, r, path);
    in_right = r > 0;
    if (in_right && S_ISSOCK(right.st_mode)) {
        if (in_left && S_ISSOCK(left.st_mode))
            return 0;
        in_right = false;
    }
    if (!in_right) {
        c.kind = CHANGE_DELETED;
        c.st = NULL;
        return in_left ? w->fn(w->userdata, &c, w->e) : 0;
    }
    if (S_ISDIR(right.st_mode))
        return visit_dir(w, &c, in_left ? &left : NULL);
    return tell(w, &c, in_left ? &left : NULL);
}

static int walk_all(struct walk *w)
{
    bool in_left, in_right;
    int r = 0;

    while (w->depth > 0 && r >= 0) {
        const char *name = next_name(&w->levels[w->depth - 1], &in_left, &in_right);
        if (name)
            r = visit(w, name, in_left, in_right);
        else
            leave(w);
    }
    return r < 0 ? r : 0;
}

/* Both fds are opened anew: their position is the caller's. */
static int enter_roots(struct walk *w, int left_fd, int right_fd)
{
    struct change_dir *root = dir_new(NULL, "");
    int own_left = -EBADF;

    if (!root)
        return -ENOMEM;
    root->is_told = true;
    root->fd = neg_errno(openat(right_fd, ".", OPEN_DIR));
    if (left_fd >= 0 && root->fd >= 0)
        own_left = neg_errno(openat(left_fd, ".", OPEN_DIR));
    int r = root->fd < 0 ? root->fd : left_fd >= 0 && own_left < 0 ? own_left : 0;
    if (r == 0 && fstat(root->fd, &root->st) < 0)
        r = -errno;
    if (r < 0) {
        close_fd(&own_left);
        change_dir_unref(root);
        return r;
    }
    return enter(w, root, own_left);
}

int changes_walk(int left_fd, int right_fd, change_fn fn, void *userdata, struct err *e)
{
    struct walk w = {.fn = fn, .userdata = userdata, .e = e};
    int r;

    w.levels = calloc(TREE_DEPTH_MAX, sizeof(*w.levels));
    if (!w.levels)
        return err_oom(e);
    r = same_init(&w.same);
    if (r >= 0)
        r = enter_roots(&w, left_fd, right_fd);
    r = r < 0 ? unreadable(&w, r, "/") : walk_all(&w);
    while (w.depth > 0)
        leave(&w);
    same_done(&w.same);
    free(w.levels);
    return r;
}

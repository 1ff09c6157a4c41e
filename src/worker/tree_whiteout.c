/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ".wh.x" says that x of the layers below is gone, ".wh..wh..opq" that everything the layers below
 * have in this directory is. Neither says anything about what the same layer brings, whichever
 * comes first.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/fs.h"
#include "base/str.h"
#include "base/walk.h"
#include "worker/tree.h"

#define PREFIX ".wh."
#define META_PREFIX ".wh..wh."
#define OPAQUE ".wh..wh..opq"

static int refuse(const char *clean, struct err *e)
{
    _free_ char *quoted = str_quote(clean);
    return err_set(e, ERR_INVALID_ARGUMENT, "invalid whiteout name %s", str_or_empty(quoted));
}

int tree_whiteout_kind(const char *clean, enum whiteout_kind *ret, struct err *e)
{
    enum whiteout_kind kind = WHITEOUT_NONE;

    for (const char *s = clean; *s;) {
        size_t n = strcspn(s, "/");
        bool last = !s[n];
        if (!str_after_prefix(s, PREFIX)) {
            s += n + !last;
            continue;
        }
        if (last && str_eq(s, OPAQUE)) {
            kind = WHITEOUT_OPAQUE;
        } else if (str_after_prefix(s, META_PREFIX)) {
            kind = WHITEOUT_SKIP; /* bookkeeping of aufs, here or above */
            break;
        } else if (!last) {
            return refuse(clean, e);
        } else {
            const char *name = s + strlen(PREFIX);
            if (!*name || str_eq(name, ".") || str_eq(name, ".."))
                return refuse(clean, e);
            kind = WHITEOUT_FILE;
        }
        s += n + !last;
    }
    *ret = kind;
    return 0;
}

/* FNV-1a with a random start: nobody can aim at a collision. */
static uint64_t hash_name(const struct tree *t, const char *dir, const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325) ^ t->own_seed;
    for (const char *s = dir; *s; s++)
        h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
    if (*dir && *name)
        h = (h ^ '/') * UINT64_C(0x100000001b3);
    for (const char *s = name; *s; s++)
        h = (h ^ (uint8_t)*s) * UINT64_C(0x100000001b3);
    return h ? h : 1;
}

static uint64_t *own_slot(const struct tree *t, uint64_t h)
{
    for (size_t i = (size_t)(h >> 17);; i++) {
        uint64_t *slot = &t->own[i & (t->own_size - 1)];
        if (*slot == 0 || *slot == h)
            return slot;
    }
}

static int own_add(struct tree *t, uint64_t h)
{
    if (t->n_own * 2 >= t->own_size) {
        struct tree grown = {.own_size = t->own_size ? t->own_size * 2 : 1024};
        grown.own = calloc(grown.own_size, sizeof(*grown.own));
        if (!grown.own)
            return -ENOMEM;
        for (size_t i = 0; i < t->own_size; i++)
            if (t->own[i])
                *own_slot(&grown, t->own[i]) = t->own[i];
        free(t->own);
        t->own = grown.own;
        t->own_size = grown.own_size;
    }
    uint64_t *slot = own_slot(t, h);
    if (!*slot) {
        *slot = h;
        t->n_own++;
    }
    return 0;
}

int tree_remember_own(struct tree *t, const char *clean, struct err *e)
{
    char path[TREE_PATH_MAX + 1];

    if (t->whiteouts != WHITEOUTS_PLAIN)
        return 0;
    if (!t->own_seed &&
        getrandom(&t->own_seed, sizeof(t->own_seed), GRND_NONBLOCK) != sizeof(t->own_seed))
        t->own_seed = (uint64_t)(uintptr_t)t | 1;
    /* The directories above are the layer's own too: an opaque marker further up must spare them.
     */
    memcpy(path, clean, strlen(clean) + 1); /* tree_clean() keeps it below TREE_PATH_MAX */
    for (;;) {
        uint64_t h = hash_name(t, path, "");
        if (t->own_size && *own_slot(t, h))
            return 0;
        if (own_add(t, h) < 0)
            return err_oom(e);
        char *slash = strrchr(path, '/');
        if (!slash)
            return 0;
        *slash = 0;
    }
}

static bool is_own(const struct tree *t, const char *dir, const char *name)
{
    return t->own_size && *own_slot(t, hash_name(t, dir, name));
}

int tree_mark_opaque(struct tree *t, int dir_fd, const char *name, const char *clean, struct err *e)
{
    const char *xattr =
        t->whiteouts == WHITEOUTS_OVERLAY ? "trusted.overlay.opaque" : "user.overlay.opaque";
    _close_ int fd =
        neg_errno(openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return tree_fail(e, fd, "open opaque directory", clean);
    if (fsetxattr(fd, xattr, "y", 1, 0) < 0)
        return tree_fail(e, -errno, "mark as opaque", clean);
    return 0;
}

/* overlayfs: a 0:0 character device hides the name below. */
static int hide(struct tree *t, int dir_fd, const char *name, const char *clean, struct err *e)
{
    struct stat st;

    if (mknodat(dir_fd, name, S_IFCHR, makedev(0, 0)) == 0)
        return 0;
    if (errno != EEXIST)
        return tree_fail(e, -errno, "make whiteout", clean);
    /* The layer brought the name itself: that stays, and a directory hides what is below it. */
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return tree_fail(e, -errno, "look at", clean);
    return S_ISDIR(st.st_mode) ? tree_mark_opaque(t, dir_fd, name, clean, e) : 0;
}

/* plain: removes what the layer did not bring, below the directory dir_fd/name that is `clean`. */
static int remove_not_own(struct tree *t, int dir_fd, const char *name, const char *clean,
                          struct err *e)
{
    char path[2 * TREE_PATH_MAX];
    struct walk w;
    struct walk_entry entry;

    size_t len = strlen(clean);
    memcpy(path, clean, len + 1);
    int r = walk_init(&w, dir_fd, name);
    if (r < 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : tree_fail(e, r, "read directory", clean);
    while (r >= 0 && (r = walk_next(&w, &entry)) > 0) {
        size_t n = strlen(entry.name);
        if (entry.event == WALK_LEFT) {
            len -= n + (len > n);
            path[len] = 0;
        } else if (!is_own(t, path, entry.name)) {
            r = fs_rm_rf(w.fd, entry.name);
        } else if (entry.is_dir && len + n + 2 < sizeof(path)) {
            if (len > 0)
                path[len++] = '/';
            memcpy(path + len, entry.name, n + 1);
            len += n;
            r = walk_enter(&w);
        }
    }
    walk_done(&w);
    return r < 0 ? tree_fail(e, r, "empty opaque directory", clean) : 0;
}

static int take_away(struct tree *t, int dir_fd, const char *name, const char *clean, struct err *e)
{
    struct stat st;

    tree_forget(t);
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : tree_fail(e, -errno, "look at", clean);
    int r = fs_rm_rf(dir_fd, name);
    return r < 0 ? tree_fail(e, r, "delete", clean) : 0;
}

int tree_add_whiteout(struct tree *t, const char *clean, enum whiteout_kind kind, struct err *e)
{
    char dir[TREE_PATH_MAX + 1];
    char target[TREE_PATH_MAX + 1];

    memcpy(dir, clean, strlen(clean) + 1);
    char *slash = strrchr(dir, '/');
    const char *base = clean + (slash ? slash + 1 - dir : 0);
    *(slash ? slash : dir) = 0;

    int fd = tree_open_parent(t, dir, e);
    if (fd < 0)
        return fd;
    if (kind == WHITEOUT_OPAQUE && t->whiteouts != WHITEOUTS_PLAIN)
        return tree_mark_opaque(t, fd, ".", dir, e);
    if (kind == WHITEOUT_OPAQUE)
        return remove_not_own(t, fd, ".", dir, e);

    const char *name = base + strlen(PREFIX);
    if (t->whiteouts != WHITEOUTS_PLAIN)
        return hide(t, fd, name, clean, e);
    /* The path without the prefix. */
    memcpy(target, clean, (size_t)(base - clean));
    memcpy(target + (base - clean), name, strlen(name) + 1);
    if (is_own(t, dir, name))
        return remove_not_own(t, fd, name, target, e);
    /* Deleting drops the cache, and with it the fd. */
    _close_ int own_fd = neg_errno(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (own_fd < 0)
        return tree_fail(e, own_fd, "open", dir);
    return take_away(t, own_fd, name, target, e);
}

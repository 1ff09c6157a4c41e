/* SPDX-License-Identifier: Apache-2.0 */
/* The two calls of fs.h that go through whole trees. */
#include <fcntl.h>

#include "base/fs.h"
#include "base/walk.h"

/* Splits off the last component. *ret_parent is malloc'ed. */
static int split_last(const char *path, char **ret_parent, char **ret_name)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t name_at = n;
    while (name_at > 0 && path[name_at - 1] != '/')
        name_at--;
    size_t name_len = n - name_at;
    const char *name = path + name_at;
    if (name_len == 0 || (name_len == 1 && name[0] == '.') ||
        (name_len == 2 && name[0] == '.' && name[1] == '.'))
        return -EINVAL;

    _free_ char *parent = name_at > 0 ? strndup(path, name_at) : strdup(".");
    _free_ char *last = strndup(name, name_len);
    if (!parent || !last)
        return -ENOMEM;
    *ret_parent = TAKE(parent);
    *ret_name = TAKE(last);
    return 0;
}

/* unlink(2) and rmdir(2) of a mount point say EBUSY. */
static int remove_name(int dir_fd, const char *name, int flags)
{
    if (unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT)
        return 0;
    return errno == EBUSY ? -EXDEV : -errno;
}

static int remove_below(struct walk *w)
{
    struct walk_entry e;
    bool progress = true;
    int r;

    while ((r = walk_next(w, &e)) > 0) {
        r = remove_name(w->fd, e.name, e.is_dir ? AT_REMOVEDIR : 0);
        if (r == 0) {
            progress = true;
        } else if (!e.is_dir || (r != -ENOTEMPTY && r != -EEXIST)) {
            return r;
        } else if (e.event == WALK_ENTRY) {
            r = walk_enter(w);
        } else if (progress) {
            /* Names were passed over (there are filesystems whose read position moves when names
             * go) or are new. Reading the parent again finds this one again. */
            progress = false;
            r = walk_rewind(w);
        }
        if (r < 0 && r != -ENOENT)
            return r;
    }
    return r;
}

int fs_rm_rf(int dir_fd, const char *path)
{
    _free_ char *parent = NULL;
    _free_ char *name = NULL;
    int r = split_last(path, &parent, &name);
    if (r < 0)
        return r;

    _close_ int parent_fd = neg_errno(openat(dir_fd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (parent_fd < 0)
        return parent_fd == -ENOENT ? 0 : parent_fd;

    for (int tries = 0; tries < 64; tries++) {
        struct walk w;
        r = walk_init(&w, parent_fd, name);
        if (r == -ENOENT)
            return 0;
        if (r == -ENOTDIR || r == -ELOOP)
            return remove_name(parent_fd, name, 0);
        if (r < 0)
            return r;
        r = remove_below(&w);
        walk_done(&w);
        if (r < 0)
            return r;
        r = remove_name(parent_fd, name, AT_REMOVEDIR);
        if (r != -ENOTEMPTY && r != -EEXIST)
            return r;
    }
    return r;
}

/* Inodes with several names that were counted already: an open-addressed set. */
struct seen_inode {
    uint64_t dev, ino; /* ino 0: free */
};
struct seen {
    struct seen_inode *slots;
    size_t n, size; /* size: a power of two */
};

static struct seen_inode *seen_slot(const struct seen *s, uint64_t dev, uint64_t ino)
{
    size_t i = (size_t)((ino ^ (dev << 40)) * UINT64_C(0x9e3779b97f4a7c15) >> 20);

    for (;; i++) {
        struct seen_inode *slot = &s->slots[i & (s->size - 1)];
        if (slot->ino == 0 || (slot->ino == ino && slot->dev == dev))
            return slot;
    }
}

/* 1 if it is new, 0 if it was there. */
static int seen_add(struct seen *s, uint64_t dev, uint64_t ino)
{
    if (s->n * 2 >= s->size) {
        struct seen grown = {.n = s->n, .size = s->size ? s->size * 2 : 64};
        grown.slots = calloc(grown.size, sizeof(*grown.slots));
        if (!grown.slots)
            return -ENOMEM;
        for (size_t i = 0; i < s->size; i++)
            if (s->slots[i].ino)
                *seen_slot(&grown, s->slots[i].dev, s->slots[i].ino) = s->slots[i];
        free(s->slots);
        *s = grown;
    }
    struct seen_inode *slot = seen_slot(s, dev, ino);
    if (slot->ino)
        return 0;
    *slot = (struct seen_inode){.dev = dev, .ino = ino};
    s->n++;
    return 1;
}

static int usage_add(const struct stat *st, struct seen *seen, int64_t *bytes, int64_t *inodes)
{
    if (st->st_nlink > 1 && !S_ISDIR(st->st_mode)) {
        int r = seen_add(seen, st->st_dev, st->st_ino);
        if (r <= 0)
            return r;
    }
    *bytes += (int64_t)st->st_blocks * 512;
    (*inodes)++;
    return 0;
}

static int usage_below(struct walk *w, struct seen *seen, int64_t *bytes, int64_t *inodes)
{
    struct walk_entry e;
    struct stat st;
    int r;

    while ((r = walk_next(w, &e)) > 0) {
        if (e.event != WALK_ENTRY)
            continue;
        if (fstatat(w->fd, e.name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT)
                continue; /* removed meanwhile */
            return -errno;
        }
        r = usage_add(&st, seen, bytes, inodes);
        if (r < 0)
            return r;
        if (S_ISDIR(st.st_mode)) {
            r = walk_enter(w);
            if (r < 0 && r != -EXDEV && r != -ENOENT && r != -ENOTDIR && r != -ELOOP)
                return r;
        }
    }
    return r;
}

int fs_usage(int dir_fd, const char *path, int64_t *ret_bytes, int64_t *ret_inodes)
{
    struct seen seen = {.slots = NULL};
    int64_t bytes = 0, inodes = 0;
    struct stat st;

    _close_ int fd = neg_errno(openat(dir_fd, path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    int r = usage_add(&st, &seen, &bytes, &inodes);
    if (r == 0 && S_ISDIR(st.st_mode)) {
        struct walk w;
        r = walk_init(&w, fd, ".");
        if (r == 0) {
            r = usage_below(&w, &seen, &bytes, &inodes);
            walk_done(&w);
        }
    }
    free(seen.slots);
    if (r < 0)
        return r;
    *ret_bytes = bytes;
    *ret_inodes = inodes;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* A directory entry of getdents64(2). */
struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

static int open_child(int dir_fd, const char *name)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return neg_errno((int)syscall(SYS_openat2, dir_fd, name, &how, sizeof(how)));
}

static void forget_entries(struct walk *w)
{
    w->at = w->filled = 0;
    w->entry_name = NULL;
}

int walk_init(struct walk *w, int dir_fd, const char *name)
{
    int fd = open_child(dir_fd, name);
    if (fd < 0)
        return fd;
    w->fd = fd;
    w->levels = NULL;
    w->depth = w->allocated = 0;
    w->left = NULL;
    w->offset = 0;
    forget_entries(w);
    return 0;
}

void walk_done(struct walk *w)
{
    close_fd(&w->fd);
    while (w->depth > 0)
        free(w->levels[--w->depth].name);
    free(w->levels);
    w->levels = NULL;
    free(w->left);
    w->left = NULL;
}

int walk_rewind(struct walk *w)
{
    if (lseek(w->fd, 0, SEEK_SET) < 0)
        return -errno;
    w->offset = 0;
    forget_entries(w);
    return 0;
}

/* 1 and the entry, 0 at the end of the current directory. */
static int next_entry(struct walk *w, struct walk_entry *ret)
{
    for (;;) {
        if (w->at >= w->filled) {
            long n = syscall(SYS_getdents64, w->fd, w->entries, sizeof(w->entries));
            if (n < 0)
                return -errno;
            if (n == 0)
                return 0;
            w->at = 0;
            w->filled = (size_t)n;
        }
        const struct linux_dirent64 *d = (const void *)(w->entries + w->at);
        w->at += d->d_reclen;
        w->offset = d->d_off;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;

        bool is_dir = d->d_type == DT_DIR;
        if (d->d_type == DT_UNKNOWN) {
            struct stat st;
            is_dir =
                fstatat(w->fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
        }
        w->entry_name = d->d_name;
        *ret = (struct walk_entry){.event = WALK_ENTRY, .name = d->d_name, .is_dir = is_dir};
        return 1;
    }
}

static int go_up(struct walk *w, struct walk_entry *ret)
{
    struct walk_level *level = &w->levels[w->depth - 1];
    struct stat st;

    /* Not open_child(): ".." of a tree below a mount point is on the same mount by construction. */
    _close_ int fd =
        neg_errno(openat(w->fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_dev != level->dev || st.st_ino != level->ino)
        return -ESTALE;
    if (lseek(fd, level->offset, SEEK_SET) < 0)
        return -errno;

    close_fd(&w->fd);
    w->fd = TAKE_FD(fd);
    w->offset = level->offset;
    forget_entries(w);
    free(w->left);
    w->left = TAKE(level->name);
    w->depth--;
    *ret = (struct walk_entry){.event = WALK_LEFT, .name = w->left, .is_dir = true};
    return 1;
}

int walk_next(struct walk *w, struct walk_entry *ret)
{
    int r = next_entry(w, ret);
    if (r != 0)
        return r;
    return w->depth > 0 ? go_up(w, ret) : 0;
}

int walk_enter(struct walk *w)
{
    struct stat st;

    if (!w->entry_name)
        return -EINVAL;
    if (w->depth == w->allocated) {
        size_t n = w->allocated ? w->allocated * 2 : 16;
        void *grown = reallocarray(w->levels, n, sizeof(*w->levels));
        if (!grown)
            return -ENOMEM;
        w->levels = grown;
        w->allocated = n;
    }
    if (fstat(w->fd, &st) < 0)
        return -errno;
    _close_ int fd = open_child(w->fd, w->entry_name);
    if (fd < 0)
        return fd;
    char *name = strdup(w->entry_name);
    if (!name)
        return -ENOMEM;

    w->levels[w->depth++] =
        (struct walk_level){.dev = st.st_dev, .ino = st.st_ino, .offset = w->offset, .name = name};
    close_fd(&w->fd);
    w->fd = TAKE_FD(fd);
    w->offset = 0;
    forget_entries(w);
    return 0;
}

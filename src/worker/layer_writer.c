/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/layer_writer.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "base/str.h"

#define BLOCK_BYTES (256 * 1024)
#define WHITEOUT_PREFIX ".wh."

static const uint8_t zeros[BLOCK_BYTES];

int layer_writer_init(struct layer_writer *w, struct tar_writer *tar, int root_fd,
                      uint64_t max_bytes, uint64_t max_entries, struct err *e)
{
    *w = (struct layer_writer){
        .tar = tar, .root_fd = root_fd, .max_bytes = max_bytes, .max_entries = max_entries};
    w->xattrs = xattrs_new();
    w->block = malloc(BLOCK_BYTES);
    if (w->xattrs && w->block)
        return 0;
    layer_writer_done(w);
    return err_oom(e);
}

void layer_writer_done(struct layer_writer *w)
{
    links_done(&w->links);
    w->xattrs = xattrs_free(w->xattrs);
    free(TAKE(w->block));
}

static bool is_reserved(const char *name)
{
    return str_after_prefix(name, WHITEOUT_PREFIX);
}

static struct timespec bounded(const struct layer_writer *w, struct timespec t)
{
    bool later = t.tv_sec > w->newest.tv_sec ||
                 (t.tv_sec == w->newest.tv_sec && t.tv_nsec > w->newest.tv_nsec);

    return w->has_newest && later ? w->newest : t;
}

static struct archive_entry *begin(struct layer_writer *w, const char *path, const struct stat *st)
{
    struct archive_entry *a = tar_writer_begin(w->tar);
    struct timespec mtime = bounded(w, st->st_mtim);

    archive_entry_set_pathname(a, path);
    archive_entry_set_mode(a, st->st_mode);
    archive_entry_set_uid(a, st->st_uid);
    archive_entry_set_gid(a, st->st_gid);
    archive_entry_set_mtime(a, mtime.tv_sec, mtime.tv_nsec);
    archive_entry_set_size(a, 0);
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
        archive_entry_set_rdev(a, st->st_rdev);
    return a;
}

/* 1 as all functions that write an entry: 0 would say that what it was about has vanished. */
static int write_header(struct layer_writer *w, struct err *e)
{
    if (++w->entries > w->max_entries)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the layer has more than %llu entries",
                       (unsigned long long)w->max_entries);
    int r = tar_writer_header(w->tar, e);
    return r < 0 ? r : 1;
}

/* The keys of PAX headers end at the first '=', and libarchive writes what is not printable in an
 * encoding that nobody else reads. */
static bool is_plain_name(const char *name)
{
    for (; *name; name++)
        if (*name <= ' ' || *name >= 0x7f || *name == '=' || *name == '%')
            return false;
    return true;
}

static int add_xattrs(struct layer_writer *w, struct archive_entry *a, int fd, const char *path,
                      struct err *e)
{
    int r = xattrs_read(w->xattrs, fd);

    if (r < 0)
        return tree_fail(e, r, "read the extended attributes of", path);
    for (size_t i = 0; i < w->xattrs->n; i++) {
        const struct tree_xattr *x = &w->xattrs->list[i];
        if (is_plain_name(x->name)) {
            archive_entry_xattr_add_entry(a, x->name, x->value, x->len);
            continue;
        }
        if (!w->warned_xattr)
            log_warn("extended attributes whose names are no plain ASCII are left out of layers");
        w->warned_xattr = true;
    }
    return 0;
}

/* A directory that the walk may have left. */
static int open_again(const struct layer_writer *w, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)neg_errno(syscall(SYS_openat2, w->root_fd, path, &how, sizeof(how)));
}

static int write_directory(struct layer_writer *w, struct change_dir *d, struct err *e)
{
    struct archive_entry *a = begin(w, d->path, &d->st);
    _close_ int own_fd = d->fd >= 0 ? -EBADF : open_again(w, d->path);
    int fd = d->fd >= 0 ? d->fd : own_fd;
    int r = fd >= 0 ? add_xattrs(w, a, fd, d->path, e) : 0; /* else it has vanished */

    if (r < 0)
        return r;
    d->is_told = true;
    return write_header(w, e);
}

/* A directory and those above it, as far as they are not in the layer yet. */
static int tell_directories(struct layer_writer *w, struct change_dir *dir, struct err *e)
{
    int r = 0;

    while (!dir->is_told && r >= 0) {
        struct change_dir *top = dir;
        while (!top->parent->is_told)
            top = top->parent;
        if (is_reserved(strrchr(top->path, '/') ? strrchr(top->path, '/') + 1 : top->path))
            return err_set(e, ERR_FAILED_PRECONDITION,
                           "a directory whose name begins with \"" WHITEOUT_PREFIX
                           "\" cannot be written to a layer");
        r = write_directory(w, top, e);
    }
    return r;
}

static int write_whiteout(struct layer_writer *w, const struct change *c, struct err *e)
{
    static const struct stat nothing = {.st_mode = S_IFREG};
    char path[TREE_PATH_MAX + sizeof(WHITEOUT_PREFIX) + 1];

    snprintf(path, sizeof(path), "%.*s" WHITEOUT_PREFIX "%s",
             (int)(strlen(c->path) - strlen(c->name)), c->path, c->name);
    begin(w, path, &nothing);
    return write_header(w, e);
}

static int write_content(struct layer_writer *w, int fd, int64_t size, const char *path,
                         struct err *e)
{
    int64_t at = 0;
    int r = 0;

    while (at < size && r >= 0) {
        int64_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0)
            data = errno == ENXIO ? size : at;
        if (data > at) {
            size_t n = (size_t)MIN_OF(MIN_OF(data, size) - at, (int64_t)sizeof(zeros));
            r = tar_writer_bytes(w->tar, zeros, n, e);
            at += (int64_t)n;
            continue;
        }
        ssize_t n = neg_errno(pread(fd, w->block, (size_t)MIN_OF(size - at, BLOCK_BYTES), at));
        if (n == -EINTR)
            continue;
        if (n < 0)
            return tree_fail(e, (int)n, "read", path);
        if (n == 0) {
            log_warn("a file has shrunk while it was read, and is filled up with zeros: %s", path);
            return 0; /* by libarchive */
        }
        r = tar_writer_bytes(w->tar, w->block, (size_t)n, e);
        at += n;
    }
    return r;
}

static int write_file(struct layer_writer *w, const struct change *c, struct err *e)
{
    _close_ int fd =
        neg_errno(openat(c->dir->fd, c->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat st;

    if (fd == -ENOENT || fd == -ELOOP || fd == -ENXIO)
        return 0;
    if (fd < 0)
        return tree_fail(e, fd, "open", c->path);
    if (fstat(fd, &st) < 0)
        return tree_fail(e, -errno, "look at", c->path);
    if (!S_ISREG(st.st_mode))
        return 0;
    /* At once, not when so much has been written. */
    if ((uint64_t)st.st_size > w->max_bytes - w->bytes)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "the files of the layer have more than %llu bytes",
                       (unsigned long long)w->max_bytes);
    w->bytes += (uint64_t)st.st_size;
    struct archive_entry *a = begin(w, c->path, &st);
    archive_entry_set_size(a, st.st_size);
    int r = add_xattrs(w, a, fd, c->path, e);
    if (r >= 0)
        r = write_header(w, e);
    if (r >= 0)
        r = write_content(w, fd, st.st_size, c->path, e);
    return r < 0 ? r : 1;
}

static int write_symlink(struct layer_writer *w, const struct change *c, struct err *e)
{
    char target[TREE_PATH_MAX + 1];
    ssize_t n = readlinkat(c->dir->fd, c->name, target, sizeof(target) - 1);

    if (n < 0)
        return errno == ENOENT || errno == EINVAL ? 0 : tree_fail(e, -errno, "read link", c->path);
    target[n] = 0;
    archive_entry_set_symlink(begin(w, c->path, c->st), target);
    return write_header(w, e);
}

static int write_change(struct layer_writer *w, const struct change *c, struct err *e)
{
    switch (c->st->st_mode & S_IFMT) {
    case S_IFREG:
        return write_file(w, c, e);
    case S_IFLNK:
        return write_symlink(w, c, e);
    default:
        begin(w, c->path, c->st);
        return write_header(w, e);
    }
}

static int write_link(struct layer_writer *w, const char *path, const struct stat *st,
                      const char *source, struct err *e)
{
    archive_entry_set_hardlink(begin(w, path, st), source);
    return write_header(w, e);
}

/* The unchanged names before the first new one. */
static int write_waiting(struct layer_writer *w, struct link *l, const struct stat *st,
                         struct err *e)
{
    int r = 0;

    for (struct link_name *at = l->waiting; at && r >= 0; at = at->next) {
        r = tell_directories(w, at->dir, e);
        if (r >= 0)
            r = write_link(w, at->path, st, l->source, e);
    }
    link_forget_waiting(l);
    return r;
}

/* The first name of it that is written. */
static int write_source(struct layer_writer *w, struct link *l, const struct change *c,
                        struct err *e)
{
    int r = write_change(w, c, e);

    if (r <= 0)
        return r;
    l->source = strdup(c->path);
    return l->source ? write_waiting(w, l, c->st, e) : err_oom(e);
}

static int add_name(struct layer_writer *w, struct link *l, const struct change *c, struct err *e)
{
    int r;

    if (!l->source && c->kind == CHANGE_LINKED)
        return is_reserved(c->name) || link_wait(l, c->dir, c->path) == 0 ? 0 : err_oom(e);
    r = tell_directories(w, c->dir, e);
    if (r < 0)
        return r;
    return l->source ? write_link(w, c->path, c->st, l->source, e) : write_source(w, l, c, e);
}

static int add_linked(struct layer_writer *w, const struct change *c, struct err *e)
{
    struct link *l;

    if (links_see(&w->links, c->st, &l) < 0)
        return err_oom(e);
    int r = add_name(w, l, c, e);
    links_settle(&w->links, c->st, l);
    return r;
}

int layer_writer_add(void *layer_writer, const struct change *c, struct err *e)
{
    struct layer_writer *w = layer_writer;

    if (c->kind != CHANGE_LINKED && is_reserved(c->name)) {
        _free_ char *quoted = str_quote(c->path);
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s cannot be written to a layer, where names with \"" WHITEOUT_PREFIX
                       "\" are whiteouts",
                       str_or_empty(quoted));
    }
    if (c->kind != CHANGE_DELETED && !c->as_dir && c->st->st_nlink > 1)
        return add_linked(w, c, e);
    int r = tell_directories(w, c->as_dir ? c->as_dir : c->dir, e);
    if (r < 0 || c->as_dir)
        return r;
    return c->kind == CHANGE_DELETED ? write_whiteout(w, c, e) : write_change(w, c, e);
}

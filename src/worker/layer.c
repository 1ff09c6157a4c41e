/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/layer.h"

static ssize_t pwrite_all(int fd, const uint8_t *bytes, size_t n, int64_t offset)
{
    for (size_t done = 0; done < n;) {
        ssize_t w = neg_errno(pwrite(fd, bytes + done, n - done, offset + (int64_t)done));
        if (w == -EINTR)
            continue;
        if (w < 0)
            return w;
        done += (size_t)w;
    }
    return 0;
}

static int write_file(struct tar_reader *tar, const struct tree_entry *entry, int fd, struct err *e)
{
    const void *bytes;
    size_t n;
    int64_t offset;
    int r;

    while ((r = tar_reader_block(tar, &bytes, &n, &offset, e)) > 0) {
        if (n == 0)
            continue;
        if (offset < 0 || offset > TREE_FILE_MAX - (int64_t)n)
            return err_set(e, ERR_RESOURCE_EXHAUSTED, "a file of the layer is larger than 16 TiB");
        ssize_t w = pwrite_all(fd, bytes, n, offset);
        if (w < 0)
            return tree_fail(e, (int)w, "write", entry->path);
    }
    return r;
}

static struct timespec bounded_time(time_t seconds, long nanoseconds)
{
    /* Times that no file system keeps, and that wrap around in some, become the epoch. */
    if (seconds < 0 || seconds > INT64_C(0x7fffffffff) || nanoseconds < 0 ||
        nanoseconds > 999999999)
        return (struct timespec){0};
    return (struct timespec){.tv_sec = seconds, .tv_nsec = nanoseconds};
}

static int collect_xattrs(struct archive_entry *a, struct tree_xattr xattrs[TREE_XATTRS_MAX],
                          size_t *ret_n, struct err *e)
{
    int n = archive_entry_xattr_reset(a);
    if (n > TREE_XATTRS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "an entry of the layer has more than %d extended attributes",
                       TREE_XATTRS_MAX);
    size_t i = 0;
    while (i < TREE_XATTRS_MAX && archive_entry_xattr_next(a, &xattrs[i].name, &xattrs[i].value,
                                                           &xattrs[i].len) == ARCHIVE_OK)
        i++;
    *ret_n = i;
    return 0;
}

static int convert(struct archive_entry *a, struct tree_xattr *xattrs, struct tree_entry *ret,
                   struct err *e)
{
    struct tree_entry entry = {
        .path = archive_entry_pathname(a),
        .mode = archive_entry_mode(a),
        .uid = (uid_t)archive_entry_uid(a),
        .gid = (gid_t)archive_entry_gid(a),
        .size = archive_entry_size(a),
        .link = archive_entry_hardlink(a),
        .xattrs = xattrs,
    };

    if (!entry.path)
        return err_set(e, ERR_INVALID_ARGUMENT, "an entry of the layer has no name");
    if (archive_entry_uid(a) < 0 || archive_entry_uid(a) > INT32_MAX || archive_entry_gid(a) < 0 ||
        archive_entry_gid(a) > INT32_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "the owner of an entry is out of range");
    entry.is_hardlink = entry.link;
    if (!entry.is_hardlink)
        entry.link = archive_entry_symlink(a);
    if (S_ISCHR(entry.mode) || S_ISBLK(entry.mode))
        entry.rdev = archive_entry_rdev(a);
    entry.times[1] = bounded_time(archive_entry_mtime(a), archive_entry_mtime_nsec(a));
    entry.times[0] = entry.times[1];
    if (archive_entry_atime_is_set(a))
        entry.times[0] = bounded_time(archive_entry_atime(a), archive_entry_atime_nsec(a));
    int r = collect_xattrs(a, xattrs, &entry.n_xattrs, e);
    if (r < 0)
        return r;
    *ret = entry;
    return 0;
}

static int add(struct tree *tree, struct tar_reader *tar, struct archive_entry *a,
               struct tree_xattr *xattrs, struct err *e)
{
    struct tree_entry entry;
    _close_ int fd = -EBADF;

    int r = convert(a, xattrs, &entry, e);
    if (r < 0 || (r = tree_add(tree, &entry, &fd, e)) <= 0)
        return r;
    r = write_file(tar, &entry, fd, e);
    if (r < 0)
        return r;
    return tree_close_file(tree, &entry, TAKE_FD(fd), e);
}

static void free_xattrs(struct tree_xattr **p)
{
    free(*p);
}

int layer_apply(struct tree *tree, tar_source_fn fn, void *source, uint64_t max_entries, bool sync,
                uint64_t *ret_entries, struct err *e)
{
    _cleanup_(tar_reader_done) struct tar_reader tar = {0};
    _cleanup_(free_xattrs) struct tree_xattr *xattrs = NULL;
    struct archive_entry *a;

    int r = tar_reader_init(&tar, fn, source, max_entries, e);
    if (r < 0)
        return r;
    xattrs = calloc(TREE_XATTRS_MAX, sizeof(*xattrs));
    if (!xattrs)
        return err_oom(e);
    while ((r = tar_reader_next(&tar, &a, e)) > 0) {
        r = add(tree, &tar, a, xattrs, e);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    if (ret_entries)
        *ret_entries = tar.entries;
    return tree_finish(tree, sync, e);
}

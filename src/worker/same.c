/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/same.h"

#include <fcntl.h>

#define BLOCK_BYTES (128 * 1024)

int same_init(struct same *s)
{
    *s = (struct same){
        .left = xattrs_new(), .right = xattrs_new(), .blocks = malloc((size_t)2 * BLOCK_BYTES)};
    if (s->left && s->right && s->blocks)
        return 0;
    same_done(s);
    return -ENOMEM;
}

void same_done(struct same *s)
{
    xattrs_free(s->left);
    xattrs_free(s->right);
    free(s->blocks);
    *s = (struct same){0};
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stat(const struct stat *a, const struct stat *b)
{
    return a->st_mode == b->st_mode && a->st_uid == b->st_uid && a->st_gid == b->st_gid &&
           a->st_rdev == b->st_rdev && same_time(&a->st_mtim, &b->st_mtim) &&
           (S_ISDIR(a->st_mode) || a->st_size == b->st_size);
}

/*
 * One inode, seen in two places. Two overlays of one chain show the files of their lower
 * directories under device numbers of their own, but with the inode number and the time of the last
 * change, which nobody can set: a copy in an upper directory has another.
 */
static bool is_one_inode(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino &&
           (a->st_dev == b->st_dev || same_time(&a->st_ctim, &b->st_ctim));
}

static int same_link(int left_dir, int right_dir, const char *name)
{
    char left[TREE_PATH_MAX + 1], right[TREE_PATH_MAX + 1];
    ssize_t n = readlinkat(left_dir, name, left, sizeof(left));
    ssize_t m = n < 0 ? n : readlinkat(right_dir, name, right, sizeof(right));

    if (m < 0)
        return -errno;
    return n == m && memcmp(left, right, (size_t)n) == 0;
}

/* Moves *at over what is a hole in both. */
static void skip_holes(int left_fd, int right_fd, int64_t *at, int64_t size)
{
    int64_t left = lseek(left_fd, *at, SEEK_DATA);
    int64_t right = left < 0 && errno != ENXIO ? -1 : lseek(right_fd, *at, SEEK_DATA);

    if (left < 0 || right < 0) /* none behind, or not known: the latter reads on */
        return;
    *at = MIN_OF(MIN_OF(left, right), size);
}

static ssize_t read_block(int fd, uint8_t *block, int64_t at)
{
    size_t n = 0;

    while (n < BLOCK_BYTES) {
        ssize_t r = neg_errno(pread(fd, block + n, BLOCK_BYTES - n, at + (int64_t)n));
        if (r == -EINTR)
            continue;
        if (r < 0)
            return r;
        if (r == 0)
            break;
        n += (size_t)r;
    }
    return (ssize_t)n;
}

static int same_content(struct same *s, int left_fd, int right_fd, int64_t size)
{
    int64_t at = 0;

    while (at < size) {
        skip_holes(left_fd, right_fd, &at, size);
        ssize_t n = read_block(left_fd, s->blocks, at);
        ssize_t m = n < 0 ? n : read_block(right_fd, s->blocks + BLOCK_BYTES, at);
        if (m < 0)
            return (int)m;
        if (n != m || memcmp(s->blocks, s->blocks + BLOCK_BYTES, (size_t)n) != 0)
            return 0;
        if (n == 0)
            break;
        at += n;
    }
    return 1;
}

static int same_opened(struct same *s, int left_dir, const struct stat *left, int right_dir,
                       const char *name)
{
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    bool is_dir = S_ISDIR(left->st_mode);
    _close_ int left_fd = neg_errno(openat(left_dir, name, flags));
    _close_ int right_fd = left_fd < 0 ? left_fd : neg_errno(openat(right_dir, name, flags));
    int r = right_fd < 0 ? right_fd : xattrs_read(s->left, left_fd);

    if (r >= 0)
        r = xattrs_read(s->right, right_fd);
    if (r < 0)
        return r;
    if (!xattrs_equal(s->left, s->right))
        return 0;
    if (is_dir || left->st_mtim.tv_nsec != 0)
        return 1;
    return same_content(s, left_fd, right_fd, left->st_size);
}

int same_file(struct same *s, int left_dir, const struct stat *left, int right_dir,
              const struct stat *right, const char *name)
{
    if (!same_stat(left, right))
        return 0;
    if (is_one_inode(left, right))
        return 1;
    if (S_ISREG(left->st_mode) || S_ISDIR(left->st_mode))
        return same_opened(s, left_dir, left, right_dir, name);
    if (S_ISLNK(left->st_mode) && left->st_mtim.tv_nsec == 0)
        return same_link(left_dir, right_dir, name);
    return 1; /* all that there is to a device or a pipe is in its stat */
}

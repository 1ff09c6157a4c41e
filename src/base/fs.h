/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files relative to a directory fd. Paths that came from an image or a client go through
 * fs_open_beneath(), which cannot leave the directory: openat2(2) with RESOLVE_IN_ROOT and
 * RESOLVE_NO_MAGICLINKS. All return 0 (or an fd, or a size) and negative errno.
 */
#pragma once

#include <dirent.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/buf.h"

/* An fd below root_fd, CLOEXEC added. Symbolic links resolve inside the root. */
int fs_open_beneath(int root_fd, const char *path, int flags, mode_t mode);
/* Every missing directory of path gets `mode`, whatever the umask; existing ones are left alone. */
int fs_mkdir_p(int dir_fd, const char *path, mode_t mode);
/* Opens (making it if missing) a directory that must be ours: owner = effective uid, not a symbolic
 * link, and sets its mode to `mode`. Parents are made with 0711. */
int fs_open_private_dir(const char *path, mode_t mode, int *ret_fd);
/* An exclusive flock(2) on an open file or directory, held until fd is closed. -ETIMEDOUT when
 * somebody else holds it for longer than timeout_ms. */
int fs_lock(int fd, int timeout_ms);
/* The whole file, NUL behind the last byte. -EFBIG over max_bytes; only regular files unless
 * any_type. */
int fs_read_file(int dir_fd, const char *path, size_t max_bytes, char **ret, size_t *ret_len);
/* Writes beside the target and renames over it; `sync`: fdatasync(2) before. */
int fs_write_file_atomic(int dir_fd, const char *path, const void *bytes, size_t n, mode_t mode,
                         bool sync);
/* Writes all of it, over short writes and EINTR. */
int fs_write_all(int fd, const void *bytes, size_t n);
/* Bytes read, less than n only at the end of the file. */
ssize_t fs_read_all(int fd, void *bytes, size_t n);
/* Removes a tree, never crossing a mount or following a link: -EXDEV at a mount point, which is
 * left whole. A missing path is success. Iterative; names with any bytes. */
int fs_rm_rf(int dir_fd, const char *path);
/* Bytes (512-byte blocks of st_blocks) and inodes below path, hard links once. */
int fs_usage(int dir_fd, const char *path, int64_t *ret_bytes, int64_t *ret_inodes);
/* For reading its entries; path itself is no symbolic link. The caller closes with closedir(3). */
int fs_open_dir(int dir_fd, const char *path, DIR **ret);
int fs_set_nonblock(int fd, bool on);
/* A path of our own: dir + "/" + name, cleaned of nothing. The caller frees. NULL: out of memory.
 */
char *fs_join(const char *dir, const char *name);
/* Lexical cleaning as Go's path.Clean. The caller frees. */
char *fs_clean_path(const char *path);
bool fs_exists(int dir_fd, const char *path);

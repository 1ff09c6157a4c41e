/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a file of a root filesystem that is not mounted: the layers of an overlay (or the one
 * directory of a bind mount) are looked through from the top, as overlayfs does, with whiteouts,
 * opaque directories (trusted.overlay.opaque, user.overlay.opaque) and symbolic links that lead
 * from one layer into another. Nothing outside the layers is ever opened: every component is opened
 * by itself, without following links, and ".." is worked out on the names.
 */
#pragma once

#include "base/mount.h"

#define LAYERS_MAX 512

struct layers {
    int *fds; /* directories, the topmost first */
    size_t n;
};

void layers_done(struct layers *l);
/* Opens what the mounts of a snapshot name. -EOPNOTSUPP for other things than one bind mount or one
 * overlay; errno of open(2) otherwise (-EACCES for who is not root). */
int layers_open(const struct mount_list *mounts, struct layers *ret);
/* The same with one directory; dir_fd is owned from success on. */
int layers_from_dir(int dir_fd, struct layers *ret);

/* Opens a regular file for reading. -ENOENT, -ELOOP, -EISDIR, -EINVAL for other types of file. */
int layers_open_file(const struct layers *l, const char *path, int *ret_fd);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has become of a tree: walks two of them side by side and tells how the right one differs
 * from the left one, in the order of names, a directory before what is in it.
 *
 * Files are the same when mode, owner, device, size, xattrs (xattrs.h), link and modification time
 * are; where both times are of a whole second, as archives make them, the content decides. Of
 * directories the size says nothing. Access and change times are not looked at.
 *
 * What is never told:
 *   - the roots themselves;
 *   - sockets of the right tree: they are as good as not there, unless the left one has them too;
 *   - character devices 0:0, which are whiteouts of overlayfs, in either tree;
 *   - what vanishes between two looks, since the right tree may be that of a running container.
 *
 * Names are only ever opened below a directory fd, without following links. The memory is that of
 * the names on the way from the root down to where the walk is.
 */
#pragma once

#include <sys/stat.h>

#include "base/err.h"
#include "worker/tree.h"

enum change_kind {
    CHANGE_SET,     /* new, or not as it was */
    CHANGE_DELETED, /* with all that is below it */
    CHANGE_LINKED,  /* as it was, but a file with several names, of which others may be new */
};

/* A directory of the right tree. Counted: who needs one after the call takes a reference. */
struct change_dir {
    unsigned refs;
    struct change_dir *parent; /* NULL: this is the root */
    int fd;                    /* -EBADF once the walk has left it */
    bool is_told;              /* for whoever is called; false at first, but for the root */
    struct stat st;
    char path[]; /* from the root, whose own is "" */
};
struct change_dir *change_dir_ref(struct change_dir *d);
struct change_dir *change_dir_unref(struct change_dir *d); /* takes NULL, returns NULL */

/* All valid during the call only. */
struct change {
    enum change_kind kind;
    struct change_dir *dir; /* that has, or had, the name */
    const char *name;
    const char *path;          /* from the root */
    const struct stat *st;     /* NULL: deleted */
    struct change_dir *as_dir; /* itself, when it is a directory */
};

/* Negative ends the walk. */
typedef int (*change_fn)(void *userdata, const struct change *c, struct err *e);

/* Directory fds, borrowed. left_fd -EBADF: nothing, everything is new. ERR_FAILED_PRECONDITION for
 * what no layer can hold: paths longer than TREE_PATH_MAX or deeper than TREE_DEPTH_MAX. */
int changes_walk(int left_fd, int right_fd, change_fn fn, void *userdata, struct err *e);

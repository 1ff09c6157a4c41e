/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target directory of a layer, and how one entry after the other gets into it. Nothing here
 * knows tar, and nothing here relies on the sandbox: names come from strangers, so
 *
 *   - a name is cleaned as if it were absolute ("../x" is "x"), capped in length and depth;
 *   - its parent is opened as an fd, symbolic links resolving inside the target; missing parents
 *     are made; where a link dangles, the directories it names are made inside the target;
 *   - the last component is never followed: what is there and is not a directory that meets a
 *     directory is removed first, whole;
 *   - owner, mode, xattrs and times are set through the fd of the new file, in this order;
 *   - times of directories are set by tree_finish(), when nothing changes them any more.
 *
 * Errors: ERR_INVALID_ARGUMENT for what a layer may not hold, ERR_RESOURCE_EXHAUSTED for a full
 * disk or quota, else ERR_UNKNOWN.
 */
#pragma once

#include <sys/stat.h>
#include <time.h>

#include "base/err.h"

#define TREE_PATH_MAX 4096               /* bytes of a name, and of a link's target */
#define TREE_NAME_MAX 255                /* bytes of a component */
#define TREE_DEPTH_MAX 1024              /* components */
#define TREE_LINKS_MAX 40                /* symbolic links on the way to one parent */
#define TREE_FILE_MAX (INT64_C(1) << 44) /* apparent size of a file, 16 TiB */
#define TREE_XATTRS_MAX 1000             /* of one entry */

enum whiteouts { WHITEOUTS_OVERLAY, WHITEOUTS_OVERLAY_USER, WHITEOUTS_PLAIN };

struct tree_xattr {
    const char *name;
    const void *value;
    size_t len;
};

struct tree_dir_times {
    char *path;
    struct timespec times[2];
};

struct tree {
    int root_fd; /* borrowed */
    enum whiteouts whiteouts;
    const int *parent_fds; /* borrowed: the layers below, nearest first */
    size_t n_parents;
    bool may_mknod; /* false: device nodes are left out with a log line */

    /* The parent of the entry before: layers come sorted, so it is often the next one's too. */
    char *cached_path;
    int cached_fd;

    struct tree_dir_times *dirs;
    size_t n_dirs, dirs_allocated;

    /* plain only: hashes of the names this layer brought, which its own opaque markers spare. */
    uint64_t *own;
    size_t n_own, own_size;
    uint64_t own_seed;
    bool warned_xattr;
};

/* What an entry is, apart from its bytes. Strings are borrowed. */
struct tree_entry {
    const char *path; /* as the layer has it */
    mode_t mode;      /* with the type */
    uid_t uid;
    gid_t gid;
    dev_t rdev;       /* devices */
    const char *link; /* symbolic: the text; hard: a name in the layer */
    bool is_hardlink;
    int64_t size;             /* regular files */
    struct timespec times[2]; /* access, modification */
    const struct tree_xattr *xattrs;
    size_t n_xattrs;
};

/* All fds stay the caller's and must stay open. */
void tree_init(struct tree *t, int root_fd, enum whiteouts whiteouts);
void tree_done(struct tree *t);

/*
 * Makes the entry. 0: done. 1: a regular file, empty still, its fd in *ret_fd, which the caller
 * fills (holes by leaving them out) and hands to tree_close_file().
 */
int tree_add(struct tree *t, const struct tree_entry *entry, int *ret_fd, struct err *e);
/* Size, owner, mode, xattrs, times; closes fd in every case. */
int tree_close_file(struct tree *t, const struct tree_entry *entry, int fd, struct err *e);
/* Times of directories; sync: everything is on disk when it returns. */
int tree_finish(struct tree *t, bool sync, struct err *e);

/* The name cleaned into out[TREE_PATH_MAX + 1], without a leading '/', "" for the root itself. */
int tree_clean(const char *path, char *out, struct err *e);
/* A write that failed: "write <path>: no space left on device" with the fitting code. */
int tree_fail(struct err *e, int r, const char *what, const char *path);

/* tree_path.c: inside the folder only. */
/* An O_PATH fd of the directory `path` (cleaned; "" is the root), missing ones made. Borrowed from
 * the cache of t, valid until the next call. */
int tree_open_parent(struct tree *t, const char *path, struct err *e);
/* The same without making anything, and the caller's: -ENOENT and the like are returned bare. */
int tree_open_existing(struct tree *t, const char *path);
/* After something was removed. */
void tree_forget(struct tree *t);

/* tree_whiteout.c: inside the folder only. */
enum whiteout_kind { WHITEOUT_NONE, WHITEOUT_SKIP, WHITEOUT_FILE, WHITEOUT_OPAQUE };
/* By the cleaned name. */
int tree_whiteout_kind(const char *clean, enum whiteout_kind *ret, struct err *e);
int tree_add_whiteout(struct tree *t, const char *clean, enum whiteout_kind kind, struct err *e);
/* Marks a directory opaque for overlayfs. */
int tree_mark_opaque(struct tree *t, int dir_fd, const char *name, const char *clean,
                     struct err *e);
/* Remembers that the layer itself brought this name (plain only). */
int tree_remember_own(struct tree *t, const char *clean, struct err *e);

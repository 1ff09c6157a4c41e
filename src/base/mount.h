/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts as containerd describes them: type, source, options (mount flags and filesystem data
 * mixed).
 */
#pragma once

#include "base/err.h"

struct mount {
    char *type; /* "bind", "overlay", ... */
    char *source;
    char *target;   /* below the mount point, usually NULL */
    char **options; /* NULL-terminated */
};
struct mount_list {
    struct mount *mounts;
    size_t n;
};
#define MOUNT_LIST_MAX 512
/* mount(2) copies one page of data, whose last byte must be NUL. */
#define MOUNT_DATA_MAX 4095

void mount_list_done(struct mount_list *l);
/* Copies. -ENOMEM, or -ENOBUFS over MOUNT_LIST_MAX. */
int mount_list_add(struct mount_list *l, const char *type, const char *source, const char *target,
                   char *const *options);

/* The mount flags (MS_*) and propagation of the options; what is not a flag goes into data, joined
 * with ','. data is malloc'ed or NULL. */
int mount_parse_options(char *const *options, unsigned long *ret_flags,
                        unsigned long *ret_propagation, char **ret_data);

/*
 * Overlay options longer than a page, shortened by the directory all lower directories have in
 * common, to be mounted from there: "lowerdir=/a/12/fs:/a/11/fs" becomes "12/fs:11/fs" in "/a/".
 * Other ways do not reach as far: fsconfig(2) takes strings of 255 bytes, and one for each lower
 * directory only in recent kernels. -E2BIG when they have nothing in common. The caller frees both.
 */
int mount_shorten_overlay(const char *data, char **ret_dir, char **ret_data);
/* Attaches a file to a free loop device which frees itself with its last user. Returns an fd that
 * keeps it until it is mounted, and its path. */
int mount_loop_attach(const char *file, bool read_only, char *ret_path, size_t size);

/* Mounts one on target: the flags of a bind mount take a second step, propagation a third, overlay
 * data longer than a page is shortened. Error: "mount source: \"x\", target: \"y\", ...". */
int mount_do(const struct mount *m, const char *target, struct err *e);
/* All in order, undone on failure. "failed to mount rootfs component: ..." is the caller's to add.
 */
int mount_all(const struct mount_list *l, const char *target, struct err *e);
/* umount2(2) until nothing is mounted on target (-EINVAL); retries EBUSY for up to 2.5 s, then
 * detaches when lazy is set. A target that is missing or no mount point is success. Blocks: not for
 * loops. */
int mount_unmount_all(const char *target, bool lazy);
/* One try: 0, -EBUSY, ... ; -EINVAL and -ENOENT are success. */
int mount_unmount_once(const char *target, int flags);
/* Lazily unmounts every mount at or below prefix, deepest first (from /proc/self/mountinfo). */
int mount_unmount_below(const char *prefix);
bool mount_is_mountpoint(const char *path);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots: a tree of filesystem states in the database, and backends that give each a directory
 * and mounts. The record is the truth; directories without one are removed by the sweep.
 */
#pragma once

#include "base/filter.h"
#include "base/mount.h"
#include "store/db.h"

enum snapshot_kind { SNAPSHOT_VIEW = 1, SNAPSHOT_ACTIVE = 2, SNAPSHOT_COMMITTED = 3 };

struct snapshot_info {
    char *name;
    char *parent; /* "" without */
    enum snapshot_kind kind;
    struct timespec created_at, updated_at;
    struct strmap labels;
};
void snapshot_info_done(struct snapshot_info *i);

/* A snapshot as its backend sees it: directory numbers, nearest parent first. */
struct snapshot_dirs {
    int64_t dir;
    enum snapshot_kind kind;
    const int64_t *parents;
    size_t n_parents;
};

/* How the backends are to work. Borrowed while snapshotters_new() runs. */
struct snapshotters_options {
    const char *overlay_root, *native_root; /* NULL or "": below the root of all */
    char *const *overlay_mount_options; /* put before those of every overlay mount; may be NULL */
    bool overlay_upperdir_label;        /* tell the upper directory in SNAPSHOT_LABEL_UPPERDIR */
    bool overlay_sync_remove;           /* snapshot_remove() returns when the directory is gone */
    bool overlay_disabled, native_disabled;
};
#define SNAPSHOT_LABEL_UPPERDIR "containerd.io/snapshot/overlay.upperdir"

/* A backend. Directories are <root>/snapshots/<dir>. Called outside transactions. */
struct snapshotter_ops {
    const char *name; /* "overlayfs", "native" */
    /* Probes the filesystem of root; ERR_UNIMPLEMENTED "...: skip plugin" when it cannot work
     * there. */
    int (*init)(const char *root, const struct snapshotters_options *options, void **ret_state,
                struct err *e);
    void (*done)(void *state);
    int (*create)(void *state, const struct snapshot_dirs *s, const struct strmap *labels,
                  struct err *e);
    int (*mounts)(void *state, const struct snapshot_dirs *s, struct mount_list *ret,
                  struct err *e);
    int (*usage)(void *state, const struct snapshot_dirs *s, int64_t *ret_bytes,
                 int64_t *ret_inodes, struct err *e);
    /* Makes what is there survive a power cut before the record says committed; NULL: nothing to
     * do. */
    int (*sync)(void *state, const struct snapshot_dirs *s, struct err *e);
    /* Adds the labels that tell of the directory and are on no record; NULL: none. 0 or negative
     * errno. */
    int (*label)(void *state, int64_t dir, struct strmap *labels);
};
extern const struct snapshotter_ops snapshotter_overlay;
extern const struct snapshotter_ops snapshotter_native;

struct snapshotter;
struct snapshotters; /* all of them */

/* state_root: <root>; each backend lives in <root>/io.containerd.snapshotter.v1.<name>. A backend
 * whose init fails is kept with its error for Introspection. options: NULL for the defaults. */
int snapshotters_new(const char *root, const struct snapshotters_options *options, struct db *db,
                     struct snapshotters **ret, struct err *e);
struct snapshotters *snapshotters_free(struct snapshotters *s);
/* INVALID_ARGUMENT "snapshotter argument missing", "snapshotter not loaded: X: invalid argument".
 */
int snapshotters_get(struct snapshotters *s, const char *name, struct snapshotter **ret,
                     struct err *e);
/* For Introspection: i-th backend, its name, root and why it was skipped (NULL if it was not). */
bool snapshotters_at(struct snapshotters *s, size_t i, const char **ret_name, const char **ret_root,
                     const char **ret_skipped);

int snapshot_prepare(struct snapshotter *s, const char *ns, const char *lease, const char *key,
                     const char *parent, const struct strmap *labels, bool view,
                     struct mount_list *ret, struct err *e);
int snapshot_mounts(struct snapshotter *s, const char *ns, const char *key, struct mount_list *ret,
                    struct err *e);
int snapshot_commit(struct snapshotter *s, const char *ns, const char *lease, const char *name,
                    const char *key, const struct strmap *labels, struct err *e);
int snapshot_remove(struct snapshotter *s, const char *ns, const char *key, struct err *e);
int snapshot_stat(struct snapshotter *s, const char *ns, const char *key, struct snapshot_info *ret,
                  struct err *e);
int snapshot_update(struct snapshotter *s, const char *ns, const char *key,
                    const struct strmap *labels, const char *const *paths, size_t n_paths,
                    struct snapshot_info *ret, struct err *e);
/* In order of name, those behind `after` (NULL: all); stops at the first non-zero result of fn and
 * returns it. No lock is held and no transaction open while fn runs. */
int snapshot_walk(struct snapshotter *s, const char *ns, const char *after,
                  const struct filter *filter,
                  int (*fn)(const struct snapshot_info *i, void *userdata), void *userdata,
                  struct err *e);
int snapshot_usage(struct snapshotter *s, const char *ns, const char *key, int64_t *ret_bytes,
                   int64_t *ret_inodes, struct err *e);

/* Removes the directories of what snapshot_remove() took off the record. Blocks; the caller of
 * snapshot_remove() runs it on a thread that may. */
void snapshotter_reap(struct snapshotter *s);
/* Removes directories that no record names (Cleanup, and the GC after its transaction). */
int snapshotter_sweep(struct snapshotter *s, struct err *e);
int snapshotters_sweep(struct snapshotters *s, struct err *e);

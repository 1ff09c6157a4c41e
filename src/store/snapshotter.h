/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the snapshot store: one loaded backend, its directory numbers and what is to be
 * removed. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "store/snapshots.h"

#define SNAPSHOT_KEY_MAX 4096
#define SNAPSHOT_PARENTS_MAX 1024
#define SNAPSHOT_BATCH 100

struct snapshot_row {
    int64_t dir;
    int64_t parent; /* 0: none */
    enum snapshot_kind kind;
};

struct snapshot_chain {
    int64_t parents[SNAPSHOT_PARENTS_MAX]; /* nearest first */
    size_t n;
};

/* Directory numbers, few at a time. */
struct dir_set {
    int64_t *dirs;
    size_t n, allocated;
};

struct snapshotter {
    const struct snapshotter_ops *ops;
    void *state; /* of the backend */
    struct db *db;
    char *root;
    char *skipped;           /* why it cannot be used, NULL if it can */
    char *label_kind;        /* "snapshot/<name>" */
    char *lease_type;        /* "snapshots/<name>" */
    int dirs_fd;             /* <root>/snapshots */
    bool sync_remove;        /* snapshot_remove() waits for the directory */
    atomic_llong *next_dir;  /* one for all backends: the number is the key of the record */
    pthread_mutex_t lock;    /* of what follows */
    struct dir_set reserved; /* being made */
    struct dir_set doomed;   /* off the record, to be removed */
};

struct snapshotter *snapshotter_free(struct snapshotter *s);
/* Never fails for a backend that cannot work: that one is `skipped`. */
int snapshotter_new(const struct snapshotter_ops *ops, const char *root,
                    const struct snapshotters_options *options, struct db *db,
                    atomic_llong *next_dir, struct snapshotter **ret, struct err *e);

/* A new number, in `reserved` until snapshotter_release(). */
int snapshotter_reserve(struct snapshotter *s, int64_t *ret_dir, struct err *e);
void snapshotter_release(struct snapshotter *s, int64_t dir);
/* Leaves a directory to the next snapshotter_reap(). */
void snapshotter_doom(struct snapshotter *s, int64_t dir);
/* Removes a directory now; what fails is logged and left to the sweep. */
void snapshotter_remove_dir(struct snapshotter *s, int64_t dir);
int snapshotter_stored_usage(struct snapshotter *s, int64_t dir, int64_t *ret_bytes,
                             int64_t *ret_inodes, struct err *e);

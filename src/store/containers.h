/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers: what shall run (spec, runtime, snapshot), without a process. Tasks are the running
 * side.
 */
#pragma once

#include "base/any.h"
#include "base/filter.h"
#include "store/db.h"

/* Strings may be NULL where they are given to a call (read as ""); they never are in a result. */
struct container {
    char *id;
    struct strmap labels;
    char *image;
    char *runtime_name;
    struct any runtime_options; /* may be absent */
    struct any spec;
    char *snapshotter;
    char *snapshot_key;
    char *sandbox;
    struct timespec created_at, updated_at;
    struct anymap extensions;
};
struct container_list {
    struct container *containers;
    size_t n;
};
void container_done(struct container *c);
void container_list_done(struct container_list *l);

/* Fields of filters: id, image, runtime.name, labels.<key>. For filter_matches() on a struct
 * container. */
const char *container_field(const void *object, const char *const *path, size_t n);

/* NOT_FOUND `container "ID" in namespace "NS": not found`. */
int container_get(struct db *db, const char *ns, const char *id, struct container *ret,
                  struct err *e);
/* Ordered by id; filter may be NULL. */
int container_list(struct db *db, const char *ns, const struct filter *filter,
                   struct container_list *ret, struct err *e);
/* Both times are set here. INVALID_ARGUMENT "create container failed validation: ...",
 * ALREADY_EXISTS `container "ID": already exists`. */
int container_create(struct db *db, const char *ns, const struct container *c,
                     struct container *ret, struct err *e);
/*
 * Paths: labels, labels.<key>, extensions, extensions.<key>, spec, image, snapshotkey; others are
 * INVALID_ARGUMENT. Without paths all of these are replaced, and a snapshotter or runtime name
 * other than the stored one is INVALID_ARGUMENT. NOT_FOUND `container "ID": not found`.
 */
int container_update(struct db *db, const char *ns, const struct container *c,
                     const char *const *paths, size_t n_paths, struct container *ret,
                     struct err *e);
/* NOT_FOUND `container ID: not found`. */
int container_delete(struct db *db, const char *ns, const char *id, struct err *e);

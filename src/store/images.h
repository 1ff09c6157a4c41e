/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: names for content. The target is a descriptor of a manifest or an index.
 */
#pragma once

#include "base/filter.h"
#include "store/db.h"

struct image_target {
    char *media_type;
    char *digest;
    int64_t size;
    struct strmap annotations;
};
/* Strings may be NULL where they are given to a call; they never are in a result. */
struct image {
    char *name;
    struct strmap labels;
    struct image_target target;
    struct timespec created_at, updated_at;
};
struct image_list {
    struct image *images;
    size_t n;
};
void image_done(struct image *i);
void image_list_done(struct image_list *l);

/* Fields of filters: name, target.digest, target.mediatype, labels.<key>, annotations.<key>. */
const char *image_field(const void *object, const char *const *path, size_t n);

/* NOT_FOUND `image "NAME": not found`. */
int image_get(struct db *db, const char *ns, const char *name, struct image *ret, struct err *e);
/* Ordered by name; filter may be NULL. */
int image_list(struct db *db, const char *ns, const struct filter *filter, struct image_list *ret,
               struct err *e);
/* Both times are set here: to now, or to an `epoch` other than {0, 0} (reproducible builds).
 * INVALID_ARGUMENT for the name, a label or the target, ALREADY_EXISTS `image "NAME": already
 * exists`. With a lease the image is attached to it. */
int image_create(struct db *db, const char *ns, const char *lease, const struct image *i,
                 struct timespec epoch, struct image *ret, struct err *e);
/* Paths: labels, labels.<key>, target, annotations, annotations.<key>; others are INVALID_ARGUMENT.
 * Without paths everything but created_at is replaced. NOT_FOUND as image_get(). */
int image_update(struct db *db, const char *ns, const char *lease, const struct image *i,
                 const char *const *paths, size_t n_paths, struct timespec epoch, struct image *ret,
                 struct err *e);
/* expected_digest: "" or what the target must be, else NOT_FOUND `image "N" has target ..., not
 * ...`. */
int image_delete(struct db *db, const char *ns, const char *name, const char *expected_digest,
                 struct err *e);

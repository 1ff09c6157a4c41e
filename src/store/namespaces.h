/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Namespaces: the names that every other object lives under. A namespace begins to exist when it is
 * created or when the first object is written into it, and ends when it is deleted, empty.
 */
#pragma once

#include "store/db.h"

struct namespace_list {
    char **names;
    size_t n;
};
void namespace_list_done(struct namespace_list *l);

/* INVALID_ARGUMENT for the name or a label, ALREADY_EXISTS `namespace "X": already exists`. */
int namespace_create(struct db *db, const char *name, const struct strmap *labels, struct err *e);
/* Labels of a namespace; one that does not exist has none and is no error, as clients ask for
 * defaults of namespaces that they are about to use. */
int namespace_labels(struct db *db, const char *name, struct strmap *ret, struct err *e);
/* Ordered by name. */
int namespace_list(struct db *db, struct namespace_list *ret, struct err *e);
/* Paths are "labels.<key>" only (INVALID_ARGUMENT otherwise); none: all labels are replaced. An
 * empty value removes a label. A namespace that is missing is made. `ret` gets the labels
 * afterwards. */
int namespace_update(struct db *db, const char *name, const struct strmap *labels,
                     const char *const *paths, size_t n_paths, struct strmap *ret, struct err *e);
/* NOT_FOUND; FAILED_PRECONDITION `namespace "X" must be empty, but it still has images, ...` . Its
 * leases go with it. */
int namespace_delete(struct db *db, const char *name, struct err *e);

/* Inside a transaction that writes an object into it: makes the namespace if it is missing. */
int namespace_ensure(struct db_txn *txn, const char *name, struct err *e);

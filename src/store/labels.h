/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Labels of every kind of object, in one table: (namespace, kind, object, key) -> value. All calls
 * are inside a transaction of the caller.
 */
#pragma once

#include "store/db.h"

/* Kinds: "namespace" (object = name), "image", "container", "content" (object = digest), "lease",
 * "snapshot/<snapshotter>" (object = key). */
int labels_read(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                struct strmap *ret, struct err *e);
/* Replaces all. Each is validated (label_validate()); empty values are not stored. */
int labels_write(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                 const struct strmap *labels, struct err *e);
/* One; an empty value removes it. */
int labels_set(struct db_txn *txn, const char *ns, const char *kind, const char *object,
               const char *key, const char *value, struct err *e);
int labels_remove(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                  struct err *e);
/* The object got a new name (Snapshots.Commit). */
int labels_move(struct db_txn *txn, const char *ns, const char *kind, const char *from,
                const char *to, struct err *e);
/* Checks all: INVALID_ARGUMENT of label_validate(). */
int labels_validate(const struct strmap *labels, struct err *e);

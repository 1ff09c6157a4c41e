/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: named roots that keep new objects alive until somebody refers to them.
 */
#pragma once

#include "base/filter.h"
#include "store/db.h"

struct lease {
    char *id;
    struct timespec created_at;
    struct strmap labels;
};
struct lease_list {
    struct lease *leases;
    size_t n;
};
struct lease_resource {
    char *type; /* "content", "ingests", "images", "snapshots/<snapshotter>" */
    char *id;
};
struct lease_resource_list {
    struct lease_resource *resources;
    size_t n;
};
void lease_done(struct lease *l);
void lease_list_done(struct lease_list *l);
void lease_resource_list_done(struct lease_resource_list *l);

/* An empty id is made up. ALREADY_EXISTS `lease "ID": already exists`. */
int lease_create(struct db *db, const char *ns, const char *id, const struct strmap *labels,
                 struct lease *ret, struct err *e);
/* NOT_FOUND `lease "ID": not found`. */
int lease_delete(struct db *db, const char *ns, const char *id, struct err *e);
int lease_list(struct db *db, const char *ns, const struct filter *filter, struct lease_list *ret,
               struct err *e);
int lease_add_resource(struct db *db, const char *ns, const char *lease, const char *type,
                       const char *id, struct err *e);
int lease_delete_resource(struct db *db, const char *ns, const char *lease, const char *type,
                          const char *id, struct err *e);
int lease_list_resources(struct db *db, const char *ns, const char *lease,
                         struct lease_resource_list *ret, struct err *e);
/* Inside a transaction that creates the object: ties it to the lease of the request. An empty lease
 * is none. NOT_FOUND "lease does not exist: not found". */
int lease_attach(struct db_txn *txn, const char *ns, const char *lease, const char *type,
                 const char *id, struct err *e);
/* Inside a transaction that removes or renames the object: all leases of the namespace let go of it.
 * Returns how many did. */
int lease_detach(struct db_txn *txn, const char *ns, const char *type, const char *id,
                 struct err *e);

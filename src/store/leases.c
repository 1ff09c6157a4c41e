/* SPDX-License-Identifier: Apache-2.0 */
#include "store/leases.h"

#include <sys/random.h>

#include "base/identifier.h"
#include "base/str.h"
#include "oci/digest.h"
#include "store/labels.h"
#include "store/namespaces.h"

#define KIND "lease"

void lease_done(struct lease *l)
{
    free(l->id);
    strmap_done(&l->labels);
    *l = (struct lease){};
}

void lease_list_done(struct lease_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        lease_done(&l->leases[i]);
    free(l->leases);
    *l = (struct lease_list){};
}

void lease_resource_list_done(struct lease_resource_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->resources[i].type);
        free(l->resources[i].id);
    }
    free(l->resources);
    *l = (struct lease_resource_list){};
}

static int lease_exists(struct db_txn *txn, const char *ns, const char *id, struct err *e)
{
    return db_exists(txn, e, "SELECT 1 FROM leases WHERE ns = ?1 AND id = ?2", 2,
                     (const char *const[]){ns, id});
}

static int check_exists(struct db_txn *txn, const char *ns, const char *id, struct err *e)
{
    int r = lease_exists(txn, ns, id, e);

    return r == 0 ? err_set(e, ERR_NOT_FOUND, "lease \"%s\": not found", id) : r;
}

/* As clients make theirs: nanoseconds of the second and four characters that are hard to meet
 * twice. */
static char *make_id(struct timespec now)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t random[4];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return NULL;
    return str_printf("%ld-%c%c%c%c", now.tv_nsec, alphabet[random[0] & 63],
                      alphabet[random[1] & 63], alphabet[random[2] & 63], alphabet[random[3] & 63]);
}

static int insert(struct db_txn *txn, const char *ns, const struct lease *l, struct err *e)
{
    sqlite3_stmt *stmt;
    int r = db_query(txn, "INSERT INTO leases (ns, id, created_at) VALUES (?1, ?2, ?3)", 2,
                     (const char *const[]){ns, l->id}, &stmt, e);

    if (r < 0)
        return r;
    db_bind_time(stmt, 3, l->created_at);
    r = db_step(txn, stmt, e);
    return r < 0 ? r : labels_write(txn, ns, KIND, l->id, &l->labels, e);
}

int lease_create(struct db *db, const char *ns, const char *id, const struct strmap *labels,
                 struct lease *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(lease_done) struct lease l = {.created_at = clock_realtime()};
    int r;

    l.id = str_empty(id) ? make_id(l.created_at) : strdup(id);
    if (!l.id || strmap_copy(&l.labels, labels) < 0)
        return err_oom(e);
    if ((r = labels_validate(labels, e)) < 0 || (r = db_begin(db, DB_WRITE_RELAXED, &txn, e)) < 0 ||
        (r = namespace_ensure(&txn, ns, e)) < 0 || (r = lease_exists(&txn, ns, l.id, e)) < 0)
        return r;
    if (r > 0)
        return err_set(e, ERR_ALREADY_EXISTS, "lease \"%s\": already exists", l.id);
    if ((r = insert(&txn, ns, &l, e)) < 0 || (r = db_commit(&txn, e)) < 0)
        return r;
    *ret = l;
    l = (struct lease){};
    return 0;
}

int lease_delete(struct db *db, const char *ns, const char *id, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    if ((r = db_begin(db, DB_REMOVE, &txn, e)) < 0 || (r = check_exists(&txn, ns, id, e)) < 0 ||
        (r = db_exec(&txn, e, "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2", 2,
                     (const char *const[]){ns, id})) < 0 ||
        (r = db_exec(&txn, e, "DELETE FROM leases WHERE ns = ?1 AND id = ?2", 2,
                     (const char *const[]){ns, id})) < 0 ||
        (r = labels_remove(&txn, ns, KIND, id, e)) < 0)
        return r;
    return db_commit(&txn, e);
}

static const char *lease_field(const void *object, const char *const *path, size_t n)
{
    const struct lease *l = object;
    char key[LABEL_MAX + 1];

    if (n == 1 && str_eq(path[0], "id"))
        return *l->id ? l->id : NULL;
    if (n > 1 && str_eq(path[0], "labels"))
        return strmap_get(&l->labels, filter_join_path(path, 1, n, key, sizeof(key)));
    return NULL;
}

static int read_row(struct db_txn *txn, const char *ns, sqlite3_stmt *stmt, struct lease *ret,
                    struct err *e)
{
    ret->created_at = db_column_time(stmt, 1);
    if (!(ret->id = db_column_dup(stmt, 0)))
        return err_oom(e);
    return labels_read(txn, ns, KIND, ret->id, &ret->labels, e);
}

int lease_list(struct db *db, const char *ns, const struct filter *filter, struct lease_list *ret,
               struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(lease_list_done) struct lease_list list = {};
    sqlite3_stmt *stmt;
    int r;

    if ((r = db_begin(db, DB_READ, &txn, e)) < 0 ||
        (r = db_query(&txn, "SELECT id, created_at FROM leases WHERE ns = ?1 ORDER BY id", 1,
                      (const char *const[]){ns}, &stmt, e)) < 0)
        return r;
    while ((r = db_step(&txn, stmt, e)) > 0) {
        _cleanup_(lease_done) struct lease l = {};
        struct lease *leases;

        r = read_row(&txn, ns, stmt, &l, e);
        if (r < 0)
            return r;
        if (filter && !filter_matches(filter, lease_field, &l))
            continue;
        leases = reallocarray(list.leases, list.n + 1, sizeof(*leases));
        if (!leases)
            return err_oom(e);
        list.leases = leases;
        leases[list.n++] = l;
        l = (struct lease){};
    }
    if (r < 0)
        return r;
    *ret = list;
    list = (struct lease_list){};
    return 0;
}

static int check_resource(const char *type, const char *id, struct err *e)
{
    const char *rest;
    const char *problem;

    if ((rest = str_after_prefix(type, "snapshots")) && (!*rest || *rest == '/')) {
        if (!*rest || !rest[1] || strchr(rest + 1, '/'))
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "invalid snapshot resource type %s: invalid argument", type);
        return 0;
    }
    if ((rest = str_after_prefix(type, "content")) || (rest = str_after_prefix(type, "ingests")) ||
        (rest = str_after_prefix(type, "images"))) {
        if (*rest == '/')
            return err_set(e, ERR_INVALID_ARGUMENT, "invalid resource type %s: invalid argument",
                           type);
        if (!*rest) {
            if (*type == 'c' && (problem = digest_problem(id)))
                return err_set(e, ERR_INVALID_ARGUMENT,
                               "invalid content resource id %s: %s: invalid argument", id, problem);
            return 0;
        }
    }
    return err_set(e, ERR_UNIMPLEMENTED, "resource type %s not supported yet: not implemented",
                   type);
}

static int attach(struct db_txn *txn, const char *ns, const char *lease, const char *type,
                  const char *id, struct err *e)
{
    int r = db_exec(txn, e,
                    "INSERT OR IGNORE INTO lease_resources (ns, lease, type, resource) "
                    "VALUES (?1, ?2, ?3, ?4)",
                    4, (const char *const[]){ns, lease, type, id});

    return r < 0 ? r : 0;
}

int lease_add_resource(struct db *db, const char *ns, const char *lease, const char *type,
                       const char *id, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    if ((r = db_begin(db, DB_WRITE_RELAXED, &txn, e)) < 0 ||
        (r = check_exists(&txn, ns, lease, e)) < 0 || (r = check_resource(type, id, e)) < 0 ||
        (r = attach(&txn, ns, lease, type, id, e)) < 0)
        return r;
    return db_commit(&txn, e);
}

int lease_delete_resource(struct db *db, const char *ns, const char *lease, const char *type,
                          const char *id, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    if ((r = db_begin(db, DB_REMOVE, &txn, e)) < 0 || (r = check_exists(&txn, ns, lease, e)) < 0 ||
        (r = check_resource(type, id, e)) < 0 ||
        (r = db_exec(&txn, e,
                     "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2 AND type = ?3 AND "
                     "resource = ?4",
                     4, (const char *const[]){ns, lease, type, id})) < 0)
        return r;
    return db_commit(&txn, e);
}

int lease_list_resources(struct db *db, const char *ns, const char *lease,
                         struct lease_resource_list *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(lease_resource_list_done) struct lease_resource_list list = {};
    sqlite3_stmt *stmt;
    int r;

    if ((r = db_begin(db, DB_READ, &txn, e)) < 0 || (r = check_exists(&txn, ns, lease, e)) < 0 ||
        (r = db_query(&txn,
                      "SELECT type, resource FROM lease_resources WHERE ns = ?1 AND lease = ?2 "
                      "ORDER BY type, resource",
                      2, (const char *const[]){ns, lease}, &stmt, e)) < 0)
        return r;
    while ((r = db_step(&txn, stmt, e)) > 0) {
        struct lease_resource *all = reallocarray(list.resources, list.n + 1, sizeof(*all));
        if (!all)
            return err_oom(e);
        list.resources = all;
        all[list.n] =
            (struct lease_resource){.type = db_column_dup(stmt, 0), .id = db_column_dup(stmt, 1)};
        list.n++;
        if (!all[list.n - 1].type || !all[list.n - 1].id)
            return err_oom(e);
    }
    if (r < 0)
        return r;
    *ret = list;
    list = (struct lease_resource_list){};
    return 0;
}

int lease_attach(struct db_txn *txn, const char *ns, const char *lease, const char *type,
                 const char *id, struct err *e)
{
    int r;

    if (str_empty(lease))
        return 0;
    r = lease_exists(txn, ns, lease, e);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "lease does not exist: not found");
    return attach(txn, ns, lease, type, id, e);
}

int lease_detach(struct db_txn *txn, const char *ns, const char *type, const char *id,
                 struct err *e)
{
    return db_exec(txn, e,
                   "DELETE FROM lease_resources WHERE ns = ?1 AND resource = ?2 AND type = ?3", 3,
                   (const char *const[]){ns, id, type});
}

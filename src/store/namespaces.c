/* SPDX-License-Identifier: Apache-2.0 */
#include "store/namespaces.h"

#include "base/buf.h"
#include "base/identifier.h"
#include "base/str.h"
#include "store/label_mask.h"
#include "store/labels.h"

#define KIND "namespace"
#define LIST_MAX_BYTES 65536 /* of the sentence that says what is left in a namespace */

void namespace_list_done(struct namespace_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->names[i]);
    free(l->names);
    *l = (struct namespace_list){};
}

static int exists(struct db_txn *txn, const char *name, struct err *e)
{
    return db_exists(txn, e, "SELECT 1 FROM namespaces WHERE name = ?1", 1,
                     (const char *const[]){name});
}

int namespace_ensure(struct db_txn *txn, const char *name, struct err *e)
{
    int r = exists(txn, name, e);

    if (r != 0)
        return r < 0 ? r : 0;
    r = db_exec(txn, e, "INSERT INTO namespaces (name) VALUES (?1)", 1,
                (const char *const[]){name});
    return r < 0 ? r : 0;
}

int namespace_create(struct db *db, const char *name, const struct strmap *labels, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    r = identifier_validate(name, e);
    if (r < 0)
        return r;
    if (labels_validate(labels, e) < 0)
        return err_wrap(e, "namespace.Labels");
    r = db_begin(db, DB_WRITE, &txn, e);
    if (r < 0)
        return r;
    r = exists(&txn, name, e);
    if (r < 0)
        return r;
    if (r > 0)
        return err_set(e, ERR_ALREADY_EXISTS, "namespace \"%s\": already exists", name);
    r = namespace_ensure(&txn, name, e);
    if (r < 0)
        return r;
    r = labels_write(&txn, name, KIND, name, labels, e);
    return r < 0 ? r : db_commit(&txn, e);
}

int namespace_labels(struct db *db, const char *name, struct strmap *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r = db_begin(db, DB_READ, &txn, e);

    return r < 0 ? r : labels_read(&txn, name, KIND, name, ret, e);
}

int namespace_list(struct db *db, struct namespace_list *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(namespace_list_done) struct namespace_list list = {};
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(db, DB_READ, &txn, e);
    if (r < 0)
        return r;
    r = db_stmt(&txn, "SELECT name FROM namespaces ORDER BY name", &stmt, e);
    if (r < 0)
        return r;
    while ((r = db_step(&txn, stmt, e)) > 0) {
        char **names = reallocarray(list.names, list.n + 1, sizeof(*names));
        if (!names)
            return err_oom(e);
        list.names = names;
        if (!(names[list.n] = db_column_dup(stmt, 0)))
            return err_oom(e);
        list.n++;
    }
    if (r < 0)
        return r;
    *ret = list;
    list = (struct namespace_list){};
    return 0;
}

static int apply(struct strmap *to, const struct strmap *labels, const char *const *paths,
                 size_t n_paths, struct err *e)
{
    if (n_paths == 0)
        return strmap_copy(to, labels) < 0 ? err_oom(e) : 0;
    for (size_t i = 0; i < n_paths; i++) {
        if (!str_after_prefix(paths[i], "labels."))
            return err_set(e, ERR_INVALID_ARGUMENT, "cannot update \"%s\" field", paths[i]);
        if (label_mask_apply_path(to, labels, "labels", paths[i]) < 0)
            return err_oom(e);
    }
    return 0;
}

int namespace_update(struct db *db, const char *name, const struct strmap *labels,
                     const char *const *paths, size_t n_paths, struct strmap *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(strmap_done) struct strmap stored = {};
    int r;

    if ((r = identifier_validate(name, e)) < 0 || (r = db_begin(db, DB_WRITE, &txn, e)) < 0 ||
        (r = namespace_ensure(&txn, name, e)) < 0 ||
        (r = labels_read(&txn, name, KIND, name, &stored, e)) < 0 ||
        (r = apply(&stored, labels, paths, n_paths, e)) < 0 ||
        (r = labels_write(&txn, name, KIND, name, &stored, e)) < 0 ||
        (r = labels_read(&txn, name, KIND, name, &stored, e)) < 0 || (r = db_commit(&txn, e)) < 0)
        return r;
    strmap_done(ret);
    *ret = stored;
    stored = (struct strmap){};
    return 0;
}

/* Appends what a namespace still has, in the order and the words that clients know. */
static int what_is_left(struct db_txn *txn, const char *name, struct buf *out, struct err *e)
{
    static const struct {
        const char *what, *sql;
    } kinds[] = {
        {"images", "SELECT 1 FROM images WHERE ns = ?1"},
        {"blobs", "SELECT 1 FROM content WHERE ns = ?1"},
        {"containers", "SELECT 1 FROM containers WHERE ns = ?1"},
    };
    sqlite3_stmt *stmt;
    int r;

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        r = db_exists(txn, e, kinds[i].sql, 1, (const char *const[]){name});
        if (r < 0)
            return r;
        if (r > 0 && buf_printf(out, "%s%s", out->len ? ", " : "", kinds[i].what) < 0)
            return err_oom(e);
    }
    r = db_query(txn, "SELECT DISTINCT snapshotter FROM snapshots WHERE ns = ?1 ORDER BY 1", 1,
                 (const char *const[]){name}, &stmt, e);
    if (r < 0)
        return r;
    while ((r = db_step(txn, stmt, e)) > 0)
        if (buf_printf(out, "%ssnapshots on \"%s\" snapshotter", out->len ? ", " : "",
                       db_column_text(stmt, 0)) < 0)
            return err_oom(e);
    return r;
}

static int remove_all(struct db_txn *txn, const char *name, struct err *e)
{
    static const char *const statements[] = {
        "DELETE FROM lease_resources WHERE ns = ?1", "DELETE FROM leases WHERE ns = ?1",
        "DELETE FROM ingests WHERE ns = ?1",         "DELETE FROM labels WHERE ns = ?1",
        "DELETE FROM namespaces WHERE name = ?1",
    };

    for (size_t i = 0; i < ARRAY_SIZE(statements); i++) {
        int r = db_exec(txn, e, statements[i], 1, (const char *const[]){name});
        if (r < 0)
            return r;
    }
    return 0;
}

int namespace_delete(struct db *db, const char *name, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(buf_done) struct buf left = BUF_INIT(LIST_MAX_BYTES);
    _free_ char *text = NULL;
    int r;

    r = db_begin(db, DB_REMOVE, &txn, e);
    if (r < 0)
        return r;
    r = exists(&txn, name, e);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "namespace \"%s\": not found", name);
    r = what_is_left(&txn, name, &left, e);
    if (r < 0)
        return r;
    if (left.len) {
        if (!(text = buf_take_str(&left)))
            return err_oom(e);
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "namespace \"%s\" must be empty, but it still has %s: failed precondition",
                       name, text);
    }
    r = remove_all(&txn, name, e);
    return r < 0 ? r : db_commit(&txn, e);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store/labels.h"

#include "base/identifier.h"
#include "base/str.h"

int labels_read(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                struct strmap *ret, struct err *e)
{
    _cleanup_(strmap_done) struct strmap labels = {};
    sqlite3_stmt *stmt;
    int r;

    r = db_query(txn,
                 "SELECT key, value FROM labels WHERE ns = ?1 AND kind = ?2 AND object = ?3 "
                 "ORDER BY key",
                 3, (const char *const[]){ns, kind, object}, &stmt, e);
    if (r < 0)
        return r;
    while ((r = db_step(txn, stmt, e)) > 0)
        if (strmap_set(&labels, db_column_text(stmt, 0), db_column_text(stmt, 1)) < 0)
            return err_oom(e);
    if (r < 0)
        return r;
    strmap_done(ret);
    *ret = labels;
    labels = (struct strmap){};
    return 0;
}

int labels_validate(const struct strmap *labels, struct err *e)
{
    STRMAP_FOREACH (l, labels) {
        int r = label_validate(l->key, l->value, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int insert(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                  const char *key, const char *value, struct err *e)
{
    int r = db_exec(txn, e,
                    "INSERT OR REPLACE INTO labels (ns, kind, object, key, value) "
                    "VALUES (?1, ?2, ?3, ?4, ?5)",
                    5, (const char *const[]){ns, kind, object, key, value});
    return r < 0 ? r : 0;
}

int labels_write(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                 const struct strmap *labels, struct err *e)
{
    int r = labels_validate(labels, e);

    if (r < 0)
        return r;
    r = labels_remove(txn, ns, kind, object, e);
    if (r < 0)
        return r;
    STRMAP_FOREACH (l, labels) {
        if (!*l->value)
            continue;
        r = insert(txn, ns, kind, object, l->key, l->value, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int labels_set(struct db_txn *txn, const char *ns, const char *kind, const char *object,
               const char *key, const char *value, struct err *e)
{
    int r;

    if (str_empty(value)) {
        r = db_exec(txn, e,
                    "DELETE FROM labels WHERE ns = ?1 AND kind = ?2 AND object = ?3 AND key = ?4",
                    4, (const char *const[]){ns, kind, object, key});
        return r < 0 ? r : 0;
    }
    r = label_validate(key, value, e);
    if (r < 0)
        return r;
    return insert(txn, ns, kind, object, key, value, e);
}

int labels_remove(struct db_txn *txn, const char *ns, const char *kind, const char *object,
                  struct err *e)
{
    int r = db_exec(txn, e, "DELETE FROM labels WHERE ns = ?1 AND kind = ?2 AND object = ?3", 3,
                    (const char *const[]){ns, kind, object});
    return r < 0 ? r : 0;
}

int labels_move(struct db_txn *txn, const char *ns, const char *kind, const char *from,
                const char *to, struct err *e)
{
    int r =
        db_exec(txn, e, "UPDATE labels SET object = ?4 WHERE ns = ?1 AND kind = ?2 AND object = ?3",
                4, (const char *const[]){ns, kind, from, to});
    return r < 0 ? r : 0;
}

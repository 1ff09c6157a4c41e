/* SPDX-License-Identifier: Apache-2.0 */
/* Records of snapshots as clients see them: stat, label, list. */
#include "base/identifier.h"
#include "base/str.h"
#include "store/label_mask.h"
#include "store/labels.h"
#include "store/snapshotter.h"

#define COLUMNS "s.name, p.name, s.kind, s.created_at, s.updated_at, s.dir"

/* Of COLUMNS. */
static int read_row(struct snapshotter *s, struct db_txn *txn, const char *ns, sqlite3_stmt *stmt,
                    struct snapshot_info *ret, struct err *e)
{
    struct snapshot_info i = {
        .name = db_column_dup(stmt, 0),
        .parent = db_column_dup(stmt, 1),
        .kind = (enum snapshot_kind)sqlite3_column_int(stmt, 2),
        .created_at = db_column_time(stmt, 3),
        .updated_at = db_column_time(stmt, 4),
    };
    int r;

    r = i.name && i.parent ? labels_read(txn, ns, s->label_kind, i.name, &i.labels, e) : err_oom(e);
    if (r < 0) {
        snapshot_info_done(&i);
        return r;
    }
    *ret = i;
    return 0;
}

/* What the backend tells by labels that are on no record. */
static int add_labels(struct snapshotter *s, int64_t dir, struct snapshot_info *i, struct err *e)
{
    return s->ops->label && s->ops->label(s->state, dir, &i->labels) < 0 ? err_oom(e) : 0;
}

static int read_info(struct snapshotter *s, struct db_txn *txn, const char *ns, const char *key,
                     struct snapshot_info *ret, int64_t *ret_dir, struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn,
                "SELECT " COLUMNS " FROM snapshots s LEFT JOIN snapshots p ON s.parent = p.dir"
                " WHERE s.ns = ? AND s.snapshotter = ? AND s.name = ?",
                &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, s->ops->name);
    db_bind_text(stmt, 3, key);
    r = db_step(txn, stmt, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "snapshot %s does not exist: not found", key);
    if (r < 0)
        return r;
    *ret_dir = sqlite3_column_int64(stmt, 5);
    return read_row(s, txn, ns, stmt, ret, e);
}

int snapshot_stat(struct snapshotter *s, const char *ns, const char *key, struct snapshot_info *ret,
                  struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(snapshot_info_done) struct snapshot_info i = {};
    int64_t dir;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = read_info(s, &txn, ns, key, &i, &dir, e);
    if (r >= 0)
        r = add_labels(s, dir, &i, e);
    if (r < 0)
        return r;
    *ret = i;
    i = (struct snapshot_info){};
    return 0;
}

static int write_update(struct snapshotter *s, struct db_txn *txn, const char *ns,
                        const struct snapshot_info *i, struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn,
                "UPDATE snapshots SET updated_at = ?"
                " WHERE ns = ? AND snapshotter = ? AND name = ?",
                &stmt, e);
    if (r < 0)
        return r;
    db_bind_time(stmt, 1, i->updated_at);
    db_bind_text(stmt, 2, ns);
    db_bind_text(stmt, 3, s->ops->name);
    db_bind_text(stmt, 4, i->name);
    r = db_step(txn, stmt, e);
    return r < 0 ? r : labels_write(txn, ns, s->label_kind, i->name, &i->labels, e);
}

int snapshot_update(struct snapshotter *s, const char *ns, const char *key,
                    const struct strmap *labels, const char *const *paths, size_t n_paths,
                    struct snapshot_info *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(snapshot_info_done) struct snapshot_info i = {};
    int64_t dir;
    int r;

    r = db_begin(s->db, DB_WRITE, &txn, e);
    if (r >= 0)
        r = read_info(s, &txn, ns, key, &i, &dir, e);
    if (r >= 0)
        r = label_mask_apply(&i.labels, labels, paths, n_paths, "snapshot", key, e);
    if (r < 0)
        return r;
    i.updated_at = clock_realtime();
    r = write_update(s, &txn, ns, &i, e);
    strmap_done(&i.labels);
    if (r >= 0) /* as stored: empty values are not */
        r = labels_read(&txn, ns, s->label_kind, key, &i.labels, e);
    if (r >= 0)
        r = add_labels(s, dir, &i, e);
    if (r >= 0)
        r = db_commit(&txn, e);
    if (r < 0)
        return r;
    *ret = i;
    i = (struct snapshot_info){};
    return 0;
}

static const char *kind_name(enum snapshot_kind kind)
{
    switch (kind) {
    case SNAPSHOT_VIEW:
        return "view";
    case SNAPSHOT_ACTIVE:
        return "active";
    case SNAPSHOT_COMMITTED:
        return "committed";
    }
    return "unknown";
}

static const char *info_field(const void *object, const char *const *path, size_t n)
{
    const struct snapshot_info *i = object;
    char key[LABEL_MAX + 1];

    if (n > 1 && str_eq(path[0], "labels"))
        return strmap_get(&i->labels, filter_join_path(path, 1, n, key, sizeof(key)));
    if (n != 1)
        return NULL;
    if (str_eq(path[0], "kind"))
        return kind_name(i->kind);
    if (str_eq(path[0], "name"))
        return i->name;
    if (str_eq(path[0], "parent"))
        return *i->parent ? i->parent : NULL;
    return NULL;
}

static int read_batch(struct snapshotter *s, const char *ns, const char *after,
                      struct snapshot_info *batch, size_t *n, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn,
                    "SELECT " COLUMNS " FROM snapshots s LEFT JOIN snapshots p ON s.parent = p.dir"
                    " WHERE s.ns = ? AND s.snapshotter = ? AND s.name > ?"
                    " ORDER BY s.name LIMIT 100",
                    &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, s->ops->name);
    db_bind_text(stmt, 3, after);
    while (*n < SNAPSHOT_BATCH && (r = db_step(&txn, stmt, e)) > 0) {
        int64_t dir = sqlite3_column_int64(stmt, 5);
        r = read_row(s, &txn, ns, stmt, &batch[*n], e);
        if (r < 0)
            return r;
        r = add_labels(s, dir, &batch[(*n)++], e);
        if (r < 0)
            return r;
    }
    return r;
}

int snapshot_walk(struct snapshotter *s, const char *ns, const char *after,
                  const struct filter *filter,
                  int (*fn)(const struct snapshot_info *i, void *userdata), void *userdata,
                  struct err *e)
{
    struct snapshot_info *batch = calloc(SNAPSHOT_BATCH, sizeof(*batch));
    _free_ char *last = strdup(str_or_empty(after));
    size_t n;
    int r;

    if (!batch || !last) {
        free(batch);
        return err_oom(e);
    }
    do {
        n = 0;
        r = read_batch(s, ns, last, batch, &n, e);
        for (size_t i = 0; i < n && r == 0; i++) {
            if (!filter || filter_matches(filter, info_field, &batch[i]))
                r = fn(&batch[i], userdata);
        }
        if (n > 0) {
            free(last);
            last = TAKE(batch[n - 1].name);
        }
        for (size_t i = 0; i < n; i++)
            snapshot_info_done(&batch[i]);
    } while (r == 0 && n == SNAPSHOT_BATCH);
    free(batch);
    return r;
}

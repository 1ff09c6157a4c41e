/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of snapshots and how records and directories stay together.
 *
 * Prepare: a directory number is reserved in memory, the backend makes the directory, and one
 * transaction then makes the record, after looking once more whether the key is free and the parent
 * still there. A crash before the transaction leaves a directory that no record names; a crash
 * after it leaves both. So a record never lacks its directory, nobody sees a directory half made,
 * and what is left over is found by comparing the disk with the records.
 *
 * Commit: what the directory holds is written to disk first (once for the filesystem), then the
 * record changes, durably. A committed snapshot is complete after a power cut, or it is still
 * active.
 *
 * Remove: only the record goes, with its number put into `doomed`; snapshotter_reap() removes those
 * directories soon after on a thread that may take its time, and after a crash the sweep finds
 * them.
 *
 * Sweep: directories are listed, then each is looked up. A number is in `reserved` from before its
 * directory exists until after its record does (or will never), and numbers are not used twice, so
 * a listed number that is neither reserved nor on record will never be.
 */
#include "store/snapshots.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/log.h"
#include "base/str.h"
#include "store/disk.h"
#include "store/label_mask.h"
#include "store/labels.h"
#include "store/leases.h"
#include "store/snapshotter.h"

#define LABEL_TARGET "containerd.io/snapshot.ref"

void snapshot_info_done(struct snapshot_info *i)
{
    free(i->name);
    free(i->parent);
    strmap_done(&i->labels);
    *i = (struct snapshot_info){};
}

static int not_found(const char *key, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "snapshot %s does not exist: not found", key);
}

/* `<before>"<key>"<after>`: the key as Go quotes it. */
static int set_quoted(struct err *e, enum err_code code, const char *before, const char *key,
                      const char *after)
{
    _free_ char *quoted = str_quote(key);

    if (!quoted)
        return err_oom(e);
    return err_set(e, code, "%s%s%s", before, quoted, after);
}

static int check_key(const char *key, struct err *e)
{
    size_t n = strlen(str_or_empty(key));

    if (n == 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "snapshot key must not be empty: invalid argument");
    if (n > SNAPSHOT_KEY_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "snapshot key is longer than %d bytes: invalid argument", SNAPSHOT_KEY_MAX);
    for (const char *c = key; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "snapshot key holds a control character: invalid argument");
    }
    return 0;
}

/* 1 and the row, 0 when there is none, negative. */
static int find(struct snapshotter *s, struct db_txn *txn, const char *ns, const char *key,
                struct snapshot_row *ret, struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn,
                "SELECT dir, parent, kind FROM snapshots"
                " WHERE ns = ? AND snapshotter = ? AND name = ?",
                &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, s->ops->name);
    db_bind_text(stmt, 3, key);
    r = db_step(txn, stmt, e);
    if (r > 0) {
        ret->dir = sqlite3_column_int64(stmt, 0);
        ret->parent = sqlite3_column_int64(stmt, 1);
        ret->kind = (enum snapshot_kind)sqlite3_column_int(stmt, 2);
    }
    return r;
}

/* The directories of a snapshot and of all it stands on, nearest first, from its parent's number
 * on. */
static int read_parents(struct db_txn *txn, int64_t parent, struct snapshot_chain *c, struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    if (parent == 0)
        return 0;
    r = db_stmt(txn,
                "WITH RECURSIVE up (dir, parent, depth) AS ("
                " SELECT dir, parent, 0 FROM snapshots WHERE dir = ?"
                " UNION ALL SELECT s.dir, s.parent, up.depth + 1 FROM snapshots s, up"
                " WHERE s.dir = up.parent) SELECT dir FROM up ORDER BY depth",
                &stmt, e);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, parent);
    while ((r = db_step(txn, stmt, e)) > 0) {
        if (c->n == SNAPSHOT_PARENTS_MAX)
            return err_set(e, ERR_INVALID_ARGUMENT, "more than %d parents: invalid argument",
                           SNAPSHOT_PARENTS_MAX);
        c->parents[c->n++] = sqlite3_column_int64(stmt, 0);
    }
    return r;
}

static struct snapshot_dirs dirs_of(const struct snapshot_row *row, const struct snapshot_chain *c)
{
    return (struct snapshot_dirs){
        .dir = row->dir, .kind = row->kind, .parents = c->parents, .n_parents = c->n};
}

/* Row and chain of an existing snapshot, in a transaction of their own. */
static int load(struct snapshotter *s, const char *ns, const char *key, struct snapshot_row *row,
                struct snapshot_chain *c, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = find(s, &txn, ns, key, row, e);
    if (r == 0)
        return not_found(key, e);
    return r < 0 ? r : read_parents(&txn, row->parent, c, e);
}

/* What a new snapshot needs: the key free, the target of a remote one not there yet, the parent
 * committed. *ret_parent is 0 without. */
static int check_new(struct snapshotter *s, struct db_txn *txn, const char *ns, const char *key,
                     const char *parent, const struct strmap *labels, int64_t *ret_parent,
                     struct err *e)
{
    const char *target = strmap_get(labels, LABEL_TARGET);
    struct snapshot_row row = {};
    int r = 0;

    if (!str_empty(target))
        r = find(s, txn, ns, target, &row, e);
    if (r > 0 && row.kind == SNAPSHOT_COMMITTED)
        return set_quoted(e, ERR_ALREADY_EXISTS, "target snapshot ", target, ": already exists");
    if (r >= 0)
        r = find(s, txn, ns, key, &row, e);
    if (r > 0)
        return set_quoted(e, ERR_ALREADY_EXISTS, "snapshot ", key, ": already exists");
    *ret_parent = 0;
    if (r < 0 || str_empty(parent))
        return r;
    r = find(s, txn, ns, parent, &row, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "parent snapshot %s does not exist: not found", parent);
    if (r > 0 && row.kind != SNAPSHOT_COMMITTED)
        return set_quoted(e, ERR_INVALID_ARGUMENT, "parent ", parent,
                          " is not committed snapshot: invalid argument");
    *ret_parent = row.dir;
    return r < 0 ? r : 0;
}

static int plan(struct snapshotter *s, const char *ns, const char *key, const char *parent,
                const struct strmap *labels, struct snapshot_row *row, struct snapshot_chain *c,
                struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = check_new(s, &txn, ns, key, parent, labels, &row->parent, e);
    return r < 0 ? r : read_parents(&txn, row->parent, c, e);
}

static int insert(struct snapshotter *s, struct db_txn *txn, const char *ns, const char *key,
                  const struct snapshot_row *row, struct err *e)
{
    struct timespec now = clock_realtime();
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn,
                "INSERT INTO snapshots (dir, ns, snapshotter, name, parent, kind, created_at,"
                " updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                &stmt, e);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, row->dir);
    db_bind_text(stmt, 2, ns);
    db_bind_text(stmt, 3, s->ops->name);
    db_bind_text(stmt, 4, key);
    if (row->parent)
        sqlite3_bind_int64(stmt, 5, row->parent);
    sqlite3_bind_int(stmt, 6, row->kind);
    db_bind_time(stmt, 7, now);
    db_bind_time(stmt, 8, now);
    return db_step(txn, stmt, e);
}

/* The second look and the record. */
static int record(struct snapshotter *s, const char *ns, const char *lease, const char *key,
                  const char *parent, const struct strmap *labels, const struct snapshot_row *row,
                  struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int64_t now_parent;
    int r;

    r = db_begin(s->db, DB_WRITE_RELAXED, &txn, e);
    if (r >= 0)
        r = check_new(s, &txn, ns, key, parent, labels, &now_parent, e);
    if (r >= 0 && now_parent != row->parent)
        return err_set(e, ERR_NOT_FOUND, "parent snapshot %s was replaced meanwhile: not found",
                       parent);
    if (r >= 0)
        r = insert(s, &txn, ns, key, row, e);
    if (r >= 0)
        r = labels_write(&txn, ns, s->label_kind, key, labels, e);
    if (r >= 0)
        r = lease_attach(&txn, ns, lease, s->lease_type, key, e);
    return r < 0 ? r : db_commit(&txn, e);
}

static int check_labels(const struct strmap *labels, struct err *e)
{
    int r = 0;

    STRMAP_FOREACH (label, labels) {
        r = label_validate(label->key, label->value, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int snapshot_prepare(struct snapshotter *s, const char *ns, const char *lease, const char *key,
                     const char *parent, const struct strmap *labels, bool view,
                     struct mount_list *ret, struct err *e)
{
    static const struct strmap no_labels;
    _free_ struct snapshot_chain *c = calloc(1, sizeof(*c));
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    struct snapshot_row row = {.kind = view ? SNAPSHOT_VIEW : SNAPSHOT_ACTIVE};
    struct snapshot_dirs dirs;
    int r;

    if (!c)
        return err_oom(e);
    if (!labels)
        labels = &no_labels;
    r = check_key(key, e);
    if (r >= 0)
        r = check_labels(labels, e);
    if (r >= 0)
        r = plan(s, ns, key, parent, labels, &row, c, e);
    if (r >= 0)
        r = snapshotter_reserve(s, &row.dir, e);
    if (r < 0)
        return r;
    dirs = dirs_of(&row, c);
    r = s->ops->mounts(s->state, &dirs, &mounts, e);
    if (r >= 0)
        r = s->ops->create(s->state, &dirs, labels, e);
    if (r >= 0)
        r = record(s, ns, lease, key, parent, labels, &row, e);
    if (r < 0)
        snapshotter_remove_dir(s, row.dir);
    snapshotter_release(s, row.dir);
    if (r < 0)
        return r;
    *ret = mounts;
    mounts = (struct mount_list){};
    return 0;
}

int snapshot_mounts(struct snapshotter *s, const char *ns, const char *key, struct mount_list *ret,
                    struct err *e)
{
    _free_ struct snapshot_chain *c = calloc(1, sizeof(*c));
    struct snapshot_row row = {};
    struct snapshot_dirs dirs;
    int r;

    if (!c)
        return err_oom(e);
    r = load(s, ns, key, &row, c, e);
    if (r < 0)
        return r;
    if (row.kind == SNAPSHOT_COMMITTED)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "requested snapshot %s not active or view: failed precondition", key);
    dirs = dirs_of(&row, c);
    return s->ops->mounts(s->state, &dirs, ret, e);
}

/* Of key: it must be active, and the name it is to get free. */
static int check_commit(struct snapshotter *s, struct db_txn *txn, const char *ns, const char *name,
                        const char *key, struct snapshot_row *ret, struct err *e)
{
    struct snapshot_row target;
    int r;

    r = find(s, txn, ns, name, &target, e);
    if (r > 0)
        return set_quoted(e, ERR_ALREADY_EXISTS, "snapshot ", name, ": already exists");
    if (r == 0)
        r = find(s, txn, ns, key, ret, e);
    if (r == 0)
        return not_found(key, e);
    if (r > 0 && ret->kind != SNAPSHOT_ACTIVE)
        return set_quoted(e, ERR_FAILED_PRECONDITION, "snapshot ", key,
                          " is not active: failed precondition");
    return r;
}

struct usage {
    int64_t bytes, inodes;
};

static int write_commit(struct snapshotter *s, struct db_txn *txn, const char *name, int64_t dir,
                        const struct usage *u, struct err *e)
{
    struct timespec now = clock_realtime();
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn,
                "UPDATE snapshots SET name = ?, kind = 3, created_at = ?, updated_at = ?,"
                " usage_bytes = ?, usage_inodes = ? WHERE dir = ?",
                &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, name);
    db_bind_time(stmt, 2, now);
    db_bind_time(stmt, 3, now);
    sqlite3_bind_int64(stmt, 4, u->bytes);
    sqlite3_bind_int64(stmt, 5, u->inodes);
    sqlite3_bind_int64(stmt, 6, dir);
    return db_step(txn, stmt, e);
}

static int record_commit(struct snapshotter *s, const char *ns, const char *lease, const char *name,
                         const char *key, const struct strmap *labels, int64_t dir,
                         const struct usage *u, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    struct snapshot_row row = {};
    int r;

    r = db_begin(s->db, DB_WRITE, &txn, e);
    if (r >= 0)
        r = check_commit(s, &txn, ns, name, key, &row, e);
    if (r >= 0 && row.dir != dir)
        return err_set(e, ERR_NOT_FOUND, "snapshot %s was replaced meanwhile: not found", key);
    if (r >= 0)
        r = write_commit(s, &txn, name, dir, u, e);
    if (r >= 0)
        r = labels_remove(&txn, ns, s->label_kind, key, e);
    if (r >= 0 && labels)
        r = labels_write(&txn, ns, s->label_kind, name, labels, e);
    if (r >= 0)
        r = lease_detach(&txn, ns, s->lease_type, key, e);
    if (r >= 0)
        r = lease_attach(&txn, ns, lease, s->lease_type, name, e);
    return r < 0 ? r : db_commit(&txn, e);
}

static int look_before_commit(struct snapshotter *s, const char *ns, const char *name,
                              const char *key, struct snapshot_row *row, struct snapshot_chain *c,
                              struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = check_commit(s, &txn, ns, name, key, row, e);
    return r < 0 ? r : read_parents(&txn, row->parent, c, e);
}

int snapshot_commit(struct snapshotter *s, const char *ns, const char *lease, const char *name,
                    const char *key, const struct strmap *labels, struct err *e)
{
    _free_ struct snapshot_chain *c = calloc(1, sizeof(*c));
    struct snapshot_row row = {};
    struct snapshot_dirs dirs;
    struct usage u = {};
    int r;

    if (!c)
        return err_oom(e);
    r = check_key(name, e);
    if (r >= 0 && labels)
        r = check_labels(labels, e);
    if (r >= 0)
        r = look_before_commit(s, ns, name, key, &row, c, e);
    if (r < 0)
        return r;
    dirs = dirs_of(&row, c);
    r = s->ops->usage(s->state, &dirs, &u.bytes, &u.inodes, e);
    if (r >= 0 && s->ops->sync)
        r = s->ops->sync(s->state, &dirs, e);
    return r < 0 ? r : record_commit(s, ns, lease, name, key, labels, row.dir, &u, e);
}

static int has_children(struct db_txn *txn, int64_t dir, struct err *e)
{
    sqlite3_stmt *stmt;
    int r = db_stmt(txn, "SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1", &stmt, e);

    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, dir);
    return db_step(txn, stmt, e);
}

int snapshot_remove(struct snapshotter *s, const char *ns, const char *key, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    const char *params[] = {ns, s->ops->name, key};
    struct snapshot_row row = {};
    int r;

    r = db_begin(s->db, DB_REMOVE, &txn, e);
    if (r >= 0)
        r = find(s, &txn, ns, key, &row, e);
    if (r == 0)
        return not_found(key, e);
    if (r > 0)
        r = has_children(&txn, row.dir, e);
    if (r > 0)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "cannot remove snapshot with child: failed precondition");
    if (r >= 0)
        r = db_exec(&txn, e, "DELETE FROM snapshots WHERE ns = ? AND snapshotter = ? AND name = ?",
                    3, params);
    if (r >= 0)
        r = labels_remove(&txn, ns, s->label_kind, key, e);
    if (r >= 0)
        r = lease_detach(&txn, ns, s->lease_type, key, e);
    if (r >= 0)
        r = db_commit(&txn, e);
    if (r < 0)
        return r;
    snapshotter_doom(s, row.dir);
    if (s->sync_remove)
        snapshotter_reap(s);
    return 0;
}

int snapshot_usage(struct snapshotter *s, const char *ns, const char *key, int64_t *ret_bytes,
                   int64_t *ret_inodes, struct err *e)
{
    _free_ struct snapshot_chain *c = calloc(1, sizeof(*c));
    struct snapshot_row row = {};
    struct snapshot_dirs dirs;
    int r;

    if (!c)
        return err_oom(e);
    r = load(s, ns, key, &row, c, e);
    if (r < 0)
        return r;
    if (row.kind == SNAPSHOT_COMMITTED)
        return snapshotter_stored_usage(s, row.dir, ret_bytes, ret_inodes, e);
    dirs = dirs_of(&row, c);
    return s->ops->usage(s->state, &dirs, ret_bytes, ret_inodes, e);
}

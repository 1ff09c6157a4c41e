/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "store/db_conn.h"
#include "store/db_log.h"
#include "store/db_schema.h"
#include "store/db_statements.h"

#define GROWTH_PAGES 64 /* what most changes add less than */

struct db {
    struct db_conn conn;
    struct db_log log;
    struct db_statements statements;
    pthread_mutex_t lock; /* held by the transaction */
    int64_t changes_before;
    bool relaxed;  /* synchronous=NORMAL is set */
    bool unsynced; /* the WAL has changes that were not synced */
    _Atomic uint64_t mutations;
};

static int open_checked(struct db *db, bool left_open, int *file_fd, struct err *e)
{
    struct db_conn *c = &db->conn;
    int64_t version = 0;
    int r = db_conn_open(c, e);

    if (r >= 0) {
        db_log_follow(&db->log);
        r = db_schema_version(c, &version, e);
    }
    if (r >= 0 && left_open)
        r = db_conn_check_pages(c, e);
    if (r >= 0)
        r = db_conn_run(
            c, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON",
            "set up", e);
    if (r >= 0)
        r = db_schema_migrate(c, version, e);
    return r < 0 ? r : db_log_open(&db->log, file_fd, e);
}

int db_open(const char *path, struct db **ret, struct err *e)
{
    _close_ int fd = -EBADF;
    struct db *db;
    int r = db_conn_open_file(path, &fd, e);

    if (r < 0)
        return r;
    db = calloc(1, sizeof(*db));
    if (!db || !(db->conn.path = strdup(path))) {
        free(db);
        return err_oom(e);
    }
    db->log = (struct db_log)DB_LOG_INIT(&db->conn);
    pthread_mutex_init(&db->lock, NULL);
    r = open_checked(db, db_conn_was_left_open(path), &fd, e);
    if (r < 0) {
        db_close(db);
        return r;
    }
    *ret = db;
    return 0;
}

struct db *db_close(struct db *db)
{
    if (!db)
        return NULL;
    db_statements_done(&db->statements);
    db_conn_close(&db->conn);
    db_log_done(&db->log);
    db_conn_done(&db->conn);
    pthread_mutex_destroy(&db->lock);
    free(db);
    return NULL;
}

const char *db_path(const struct db *db)
{
    return db->conn.path;
}

/* synchronous cannot change inside a transaction, so it is set before one that needs another value.
 */
static int set_durability(struct db *db, enum db_mode mode, struct err *e)
{
    bool relaxed = mode != DB_WRITE;
    int r;

    if (mode == DB_READ || relaxed == db->relaxed)
        return 0;
    r = db_conn_run(&db->conn,
                    relaxed ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", "set up",
                    e);
    if (r >= 0)
        db->relaxed = relaxed;
    return r;
}

/* A statement of the frame of a transaction, prepared once. */
static int step_once(struct db_txn *txn, const char *sql, struct err *e)
{
    sqlite3_stmt *stmt;
    int r = db_stmt(txn, sql, &stmt, e);

    return r < 0 ? r : db_step(txn, stmt, e);
}

int db_begin(struct db *db, enum db_mode mode, struct db_txn *ret, struct err *e)
{
    struct db_txn txn = {.db = db, .mode = mode};
    int r;

    pthread_mutex_lock(&db->lock);
    db_statements_begin(&db->statements);
    r = set_durability(db, mode, e);
    /* If it is missed, the commit says so. */
    if (r >= 0 && mode != DB_READ)
        db_log_have_room(&db->log, db->log.pages + GROWTH_PAGES, NULL);
    if (r >= 0)
        r = step_once(&txn, mode == DB_READ ? "BEGIN" : "BEGIN IMMEDIATE", e);
    if (r < 0) {
        pthread_mutex_unlock(&db->lock);
        return r;
    }
    db->changes_before = sqlite3_total_changes64(db->conn.sqlite);
    *ret = txn;
    return 0;
}

void db_rollback(struct db_txn *txn)
{
    struct db *db = txn->db;
    struct err ignored = ERR_INIT;

    if (!db)
        return;
    db_statements_reset(&db->statements);
    /* Some errors (a full disk) have rolled back already. */
    if (!sqlite3_get_autocommit(db->conn.sqlite) && step_once(txn, "ROLLBACK", &ignored) < 0)
        log_warn("roll back: %s", ignored.msg);
    db_statements_reset(&db->statements);
    txn->db = NULL;
    pthread_mutex_unlock(&db->lock);
}

/* Before a commit, for what the database has become. Removals are not refused: they hardly ever
 * make it larger, and what they free is what is wanted. */
static int make_room(struct db_txn *txn, int64_t *ret_pages, struct err *e)
{
    sqlite3_stmt *stmt;
    int r = db_stmt(txn, "PRAGMA page_count", &stmt, e);

    if (r >= 0)
        r = db_step(txn, stmt, e);
    if (r < 0)
        return r;
    *ret_pages = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    r = db_log_have_room(&txn->db->log, *ret_pages, e);
    if (r < 0 && txn->mode == DB_REMOVE) {
        err_clear(e);
        return 0;
    }
    return r;
}

int db_commit(struct db_txn *txn, struct err *e)
{
    struct db *db = txn->db;
    int64_t pages = 0;
    int r = 0;

    db_statements_reset(&db->statements);
    if (sqlite3_get_autocommit(db->conn.sqlite)) {
        db_rollback(txn);
        return err_set(e, ERR_ABORTED, "commit in metadata database %s: the transaction has ended",
                       db->conn.path);
    }
    bool changed = sqlite3_total_changes64(db->conn.sqlite) != db->changes_before;
    if (changed)
        r = make_room(txn, &pages, e);
    if (r >= 0)
        r = step_once(txn, "COMMIT", e);
    if (r < 0) {
        db_rollback(txn);
        return r;
    }
    db_statements_reset(&db->statements);
    if (changed) {
        atomic_fetch_add(&db->mutations, 1);
        db->unsynced = db->relaxed;
        db_log_grew(&db->log, pages);
    }
    txn->db = NULL;
    pthread_mutex_unlock(&db->lock);
    return 0;
}

int db_sync(struct db *db, struct err *e)
{
    _free_ char *wal = str_printf("%s-wal", db->conn.path);
    _close_ int fd = -EBADF;
    bool unsynced;

    pthread_mutex_lock(&db->lock);
    unsynced = db->unsynced;
    db->unsynced = false;
    pthread_mutex_unlock(&db->lock);
    if (!unsynced)
        return 0;
    if (!wal)
        return err_oom(e);
    fd = open(wal, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && fdatasync(fd) == 0)
        return 0;
    int r = err_errno(e, -errno, "sync %s", wal);
    pthread_mutex_lock(&db->lock);
    db->unsynced = true;
    pthread_mutex_unlock(&db->lock);
    return r;
}

int db_stmt(struct db_txn *txn, const char *sql, sqlite3_stmt **ret, struct err *e)
{
    return db_statements_get(&txn->db->statements, &txn->db->conn, sql, ret, e);
}

int db_query(struct db_txn *txn, const char *sql, size_t n, const char *const *texts,
             sqlite3_stmt **ret, struct err *e)
{
    int r = db_stmt(txn, sql, ret, e);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (db_bind_text(*ret, (int)i + 1, texts[i]) < 0)
            return err_oom(e);
    return 0;
}

int db_exists(struct db_txn *txn, struct err *e, const char *sql, size_t n,
              const char *const *texts)
{
    sqlite3_stmt *stmt;
    int r = db_query(txn, sql, n, texts, &stmt, e);

    if (r < 0)
        return r;
    r = db_step(txn, stmt, e);
    sqlite3_reset(stmt);
    return r;
}

int db_step(struct db_txn *txn, sqlite3_stmt *stmt, struct err *e)
{
    int rc = sqlite3_step(stmt);

    switch (rc) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        return db_conn_error(&txn->db->conn, rc, sqlite3_stmt_readonly(stmt) ? "read" : "write", e);
    }
}

int db_exec(struct db_txn *txn, struct err *e, const char *sql, size_t n, const char *const *texts)
{
    sqlite3_stmt *stmt;
    int r = db_stmt(txn, sql, &stmt, e);

    if (r < 0)
        return r;
    /* The statement ends before this function does, so nothing needs copying. */
    for (size_t i = 0; i < n; i++) {
        int rc = sqlite3_bind_text(stmt, (int)i + 1, texts[i], -1, SQLITE_STATIC);
        if (rc != SQLITE_OK)
            return db_conn_error(&txn->db->conn, rc, "bind", e);
    }
    while ((r = db_step(txn, stmt, e)) > 0)
        ;
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return r < 0 ? r : sqlite3_changes(txn->db->conn.sqlite);
}

void db_release_memory(struct db *db)
{
    pthread_mutex_lock(&db->lock);
    sqlite3_db_release_memory(db->conn.sqlite);
    pthread_mutex_unlock(&db->lock);
}

uint64_t db_mutations(const struct db *db)
{
    return atomic_load(&db->mutations);
}

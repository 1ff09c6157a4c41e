/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection, opened in exclusive locking mode: a second daemon on the same file is refused,
 * and SQLite keeps its index of the WAL on the heap instead of in a shared memory file.
 *
 * Statements stay prepared in a small table that forgets the least recently used one. A statement
 * never outlives its transaction in a running state: the end of a transaction resets what it used
 * and drops its bindings, so that a large value is not kept by an idle statement.
 */
#include "store/db.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "store/db_reserve.h"
#include "store/disk.h"
#include "store/schema.h"

#define APPLICATION_ID 0x57727279 /* "Wrry" in the header of the file */
#define STATEMENTS_MAX 48
#define CACHE_KIB 512
#define CHECKPOINT_PAGES 1000           /* in the log: time to copy them into the file */
#define GROWTH_PAGES 64                 /* what most changes add less than */
#define SECONDS_MAX INT64_C(9000000000) /* of a time, either way of 1970: the year 2255 */
#define LOOKASIDE_SLOT_BYTES 512
#define LOOKASIDE_SLOTS 32

struct statement {
    const char *sql; /* NULL: free */
    sqlite3_stmt *stmt;
    uint64_t used_in; /* number of the transaction */
};

struct db {
    sqlite3 *sqlite;
    char *path;
    pthread_mutex_t lock; /* held by the transaction */
    uint64_t transaction; /* number of the running one */
    int64_t changes_before;
    bool relaxed;  /* synchronous=NORMAL is set */
    bool unsynced; /* the WAL has changes that were not synced */
    struct db_reserve reserve;
    int64_t pages;     /* of the database after the last change */
    int64_t log_pages; /* in the log that are not in the file yet */
    struct statement statements[STATEMENTS_MAX];
    _Atomic uint64_t mutations;
};

static int set_damaged(struct db *db, const char *why, struct err *e)
{
    return err_set(
        e, ERR_DATA_LOSS,
        "metadata database %s is damaged (%s): restore it from a backup, or move it away "
        "to start with an empty one",
        db->path, why);
}

/* What the connection says about the result code rc of the call just made. */
static int set_error(struct db *db, int rc, const char *what, struct err *e)
{
    int errnum = db->sqlite ? sqlite3_system_errno(db->sqlite) : 0;
    const char *text = db->sqlite ? sqlite3_errmsg(db->sqlite) : sqlite3_errstr(rc);

    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return err_oom(e);
    case SQLITE_FULL:
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "%s in metadata database %s: no space left on device", what, db->path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return set_damaged(db, text, e);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_UNAVAILABLE,
                       "metadata database %s is in use by another process: unavailable", db->path);
    case SQLITE_READONLY:
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s in metadata database %s: read-only file system: failed precondition",
                       what, db->path);
    case SQLITE_TOOBIG:
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "%s in metadata database %s: value too large",
                       what, db->path);
    case SQLITE_IOERR:
        if (errnum == ENOSPC || errnum == EDQUOT)
            return err_set(e, ERR_RESOURCE_EXHAUSTED, "%s in metadata database %s: %s", what,
                           db->path, err_strerror(errnum));
        return err_errno(e, errnum ? -errnum : -EIO, "%s in metadata database %s", what, db->path);
    case SQLITE_CANTOPEN:
        return err_errno(e, errnum ? -errnum : -EIO, "%s metadata database %s", what, db->path);
    default:
        return err_set(e, ERR_UNKNOWN, "%s in metadata database %s: %s", what, db->path, text);
    }
}

/* A text of our own without parameters or rows. */
static int run(struct db *db, const char *sql, const char *what, struct err *e)
{
    int rc = sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : set_error(db, rc, what, e);
}

static int run_number(struct db *db, const char *format, int64_t n, const char *what, struct err *e)
    __attribute__((format(printf, 2, 0)));
static int run_number(struct db *db, const char *format, int64_t n, const char *what, struct err *e)
{
    char sql[64];

    sqlite3_snprintf(sizeof(sql), sql, format, n);
    return run(db, sql, what, e);
}

/* The one number that a pragma or count answers. */
static int ask_number(struct db *db, const char *sql, int64_t *ret, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db->sqlite, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        *ret = sqlite3_column_int64(stmt, 0);
        rc = SQLITE_OK;
    }
    int r = rc == SQLITE_OK ? 0 : set_error(db, rc == SQLITE_DONE ? SQLITE_ERROR : rc, "read", e);
    sqlite3_finalize(stmt);
    return r;
}

static void set_up_process(void)
{
    /* Counting every allocation takes a lock of its own; nobody reads the counters. */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    /* The page cache is one piece, which the C library maps by itself: pages among everything else
     * on the heap would leave holes there that cannot be given back. */
    sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, -CACHE_KIB);
}

/* Makes the file with its mode, and refuses what is not a plain file before SQLite touches it. */
static int open_file(const char *path, int *ret_fd, struct err *e)
{
    _close_ int fd =
        open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
    struct stat st;

    if (fd < 0)
        return err_errno(e, -errno, "open metadata database %s", path);
    if (fstat(fd, &st) < 0)
        return err_errno(e, -errno, "stat metadata database %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "metadata database %s is not a regular file: move it away", path);
    if ((st.st_mode & 07777) != 0600 && fchmod(fd, 0600) < 0)
        return err_errno(e, -errno, "set mode of metadata database %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* A WAL with something in it at the start means that the last owner did not close the file. */
static bool was_left_open(const char *path)
{
    _free_ char *wal = str_printf("%s-wal", path);
    struct stat st;

    return wal && stat(wal, &st) == 0 && st.st_size > 0;
}

static int check_version(struct db *db, int64_t *ret_version, struct err *e)
{
    int64_t version = 0, application = 0, tables = 0;
    int r;

    if ((r = ask_number(db, "PRAGMA user_version", &version, e)) < 0 ||
        (r = ask_number(db, "PRAGMA application_id", &application, e)) < 0 ||
        (r = ask_number(db, "SELECT count(*) FROM sqlite_master", &tables, e)) < 0)
        return r;
    if (application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0))
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s is a database of another program: move it away", db->path);
    if (version > (int64_t)db_schema_n)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "metadata database %s has schema version %lld, this version knows %zu: "
                       "start the newer version that wrote it",
                       db->path, (long long)version, db_schema_n);
    if (version < 0)
        return set_damaged(db, "negative schema version", e);
    *ret_version = version;
    return 0;
}

static int check_pages(struct db *db, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db->sqlite, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    int r = 0;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        r = set_error(db, rc, "check", e);
    else if (!str_eq((const char *)sqlite3_column_text(stmt, 0), "ok"))
        r = set_damaged(db, (const char *)sqlite3_column_text(stmt, 0), e);
    sqlite3_finalize(stmt);
    return r;
}

/* All missing steps in one transaction. It is run when there is nothing to do, too: its lock is
 * what keeps other processes out from now on. */
static int migrate(struct db *db, int64_t version, struct err *e)
{
    int r = run(db, "BEGIN IMMEDIATE", "begin", e);

    if (r >= 0 && version < (int64_t)db_schema_n)
        r = run_number(db, "PRAGMA application_id = %lld", APPLICATION_ID, "set version", e);
    for (int64_t i = version; r >= 0 && i < (int64_t)db_schema_n; i++) {
        r = run(db, db_schema[i], "create tables", e);
        if (r >= 0)
            r = run_number(db, "PRAGMA user_version = %lld", i + 1, "set version", e);
    }
    if (r >= 0)
        r = run(db, "COMMIT", "commit", e);
    if (r < 0 && !sqlite3_get_autocommit(db->sqlite))
        sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

/* Told after every commit how many pages are in the log. */
static int note_log_pages(void *userdata, sqlite3 *sqlite, const char *name, int pages)
{
    struct db *db = userdata;

    db->log_pages = pages;
    return SQLITE_OK;
}

static int set_up_connection(struct db *db, struct err *e)
{
    int rc = sqlite3_open_v2(db->path, &db->sqlite,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                             NULL);
    int r;

    if (rc != SQLITE_OK)
        return set_error(db, rc, "open", e);
    sqlite3_extended_result_codes(db->sqlite, 1);
    sqlite3_busy_timeout(db->sqlite, 0);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_LOOKASIDE, NULL, LOOKASIDE_SLOT_BYTES,
                      LOOKASIDE_SLOTS);
    sqlite3_wal_hook(db->sqlite, note_log_pages, db);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    r = run(
        db,
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = FAST",
        "set up", e);
    if (r >= 0)
        r = run_number(db, "PRAGMA cache_size = %lld", -CACHE_KIB, "set up", e);
    return r;
}

/* Copies the log into the file; the next change then begins it anew. */
static void checkpoint(struct db *db)
{
    int in_log = 0, copied = 0;
    int rc =
        sqlite3_wal_checkpoint_v2(db->sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &copied);
    struct err e = ERR_INIT;

    if (rc != SQLITE_OK) {
        set_error(db, rc, "checkpoint", &e);
        log_warn("%s", e.msg);
    } else if (in_log == copied) {
        db->log_pages = 0;
        db_reserve_cut(&db->reserve, db->pages);
    }
}

/* Blocks on disk for a database of so many pages. [lock held] */
static int have_room(struct db *db, int64_t pages, struct err *e)
{
    int r = db_reserve_have(&db->reserve, pages, db->log_pages);

    if (r < 0 && db->log_pages > 0 && sqlite3_get_autocommit(db->sqlite)) {
        checkpoint(db);
        r = db_reserve_have(&db->reserve, pages, db->log_pages);
    }
    return r < 0 ? disk_error(e, r, "write in metadata database %s", db->path) : 0;
}

static int open_reserve(struct db *db, int *file_fd, struct err *e)
{
    struct err full = ERR_INIT;
    int64_t page_bytes = 0;
    int r;

    if ((r = ask_number(db, "PRAGMA page_size", &page_bytes, e)) < 0 ||
        (r = ask_number(db, "PRAGMA page_count", &db->pages, e)) < 0)
        return r;
    r = db_reserve_open(&db->reserve, db->path, file_fd, page_bytes);
    if (r < 0)
        return err_errno(e, r, "open the log of metadata database %s", db->path);
    if (have_room(db, db->pages, &full) < 0)
        log_warn("%s: nothing can be added until there is room", full.msg);
    return 0;
}

static int open_checked(struct db *db, bool left_open, int *file_fd, struct err *e)
{
    int64_t version = 0;
    int r = set_up_connection(db, e);

    if (r >= 0)
        r = check_version(db, &version, e);
    if (r >= 0 && left_open)
        r = check_pages(db, e);
    if (r >= 0)
        r = run(db,
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON",
                "set up", e);
    if (r >= 0)
        r = migrate(db, version, e);
    return r < 0 ? r : open_reserve(db, file_fd, e);
}

int db_open(const char *path, struct db **ret, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    _close_ int fd = -EBADF;
    struct db *db;
    int r = open_file(path, &fd, e);

    if (r < 0)
        return r;
    pthread_once(&once, set_up_process);
    db = calloc(1, sizeof(*db));
    if (!db || !(db->path = strdup(path))) {
        free(db);
        return err_oom(e);
    }
    db->reserve = (struct db_reserve)DB_RESERVE_INIT;
    pthread_mutex_init(&db->lock, NULL);
    r = open_checked(db, was_left_open(path), &fd, e);
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
    for (size_t i = 0; i < STATEMENTS_MAX; i++)
        sqlite3_finalize(db->statements[i].stmt);
    /* The last close of a database in WAL mode checkpoints and removes the WAL. */
    sqlite3_close(db->sqlite);
    db_reserve_leave(&db->reserve, db->path);
    db_reserve_done(&db->reserve);
    pthread_mutex_destroy(&db->lock);
    free(db->path);
    free(db);
    return NULL;
}

const char *db_path(const struct db *db)
{
    return db->path;
}

/* synchronous cannot change inside a transaction, so it is set before one that needs another value.
 */
static int set_durability(struct db *db, enum db_mode mode, struct err *e)
{
    bool relaxed = mode != DB_WRITE;
    int r;

    if (mode == DB_READ || relaxed == db->relaxed)
        return 0;
    r = run(db, relaxed ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL", "set up", e);
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
    db->transaction++;
    r = set_durability(db, mode, e);
    if (r >= 0 && mode != DB_READ)
        have_room(db, db->pages + GROWTH_PAGES, NULL); /* if it is missed, the commit says so */
    if (r >= 0)
        r = step_once(&txn, mode == DB_READ ? "BEGIN" : "BEGIN IMMEDIATE", e);
    if (r < 0) {
        pthread_mutex_unlock(&db->lock);
        return r;
    }
    db->changes_before = sqlite3_total_changes64(db->sqlite);
    *ret = txn;
    return 0;
}

/* Statements of this transaction stop and forget their values. */
static void reset_statements(struct db *db)
{
    for (size_t i = 0; i < STATEMENTS_MAX; i++) {
        struct statement *s = &db->statements[i];
        if (!s->stmt || s->used_in != db->transaction)
            continue;
        sqlite3_reset(s->stmt);
        sqlite3_clear_bindings(s->stmt);
    }
}

void db_rollback(struct db_txn *txn)
{
    struct db *db = txn->db;
    struct err ignored = ERR_INIT;

    if (!db)
        return;
    reset_statements(db);
    /* Some errors (a full disk) have rolled back already. */
    if (!sqlite3_get_autocommit(db->sqlite) && step_once(txn, "ROLLBACK", &ignored) < 0)
        log_warn("roll back: %s", ignored.msg);
    reset_statements(db);
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
    r = have_room(txn->db, *ret_pages, e);
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

    reset_statements(db);
    if (sqlite3_get_autocommit(db->sqlite)) {
        db_rollback(txn);
        return err_set(e, ERR_ABORTED, "commit in metadata database %s: the transaction has ended",
                       db->path);
    }
    bool changed = sqlite3_total_changes64(db->sqlite) != db->changes_before;
    if (changed)
        r = make_room(txn, &pages, e);
    if (r >= 0)
        r = step_once(txn, "COMMIT", e);
    if (r < 0) {
        db_rollback(txn);
        return r;
    }
    reset_statements(db);
    if (changed) {
        atomic_fetch_add(&db->mutations, 1);
        db->unsynced = db->relaxed;
        db->pages = pages;
        if (db->log_pages >= CHECKPOINT_PAGES)
            checkpoint(db);
    }
    txn->db = NULL;
    pthread_mutex_unlock(&db->lock);
    return 0;
}

int db_sync(struct db *db, struct err *e)
{
    _free_ char *wal = str_printf("%s-wal", db->path);
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
    struct db *db = txn->db;
    struct statement *oldest = &db->statements[0];
    int rc;

    for (size_t i = 0; i < STATEMENTS_MAX; i++) {
        struct statement *s = &db->statements[i];
        if (s->sql == sql) {
            sqlite3_reset(s->stmt);
            sqlite3_clear_bindings(s->stmt);
            s->used_in = db->transaction;
            *ret = s->stmt;
            return 0;
        }
        if (s->used_in < oldest->used_in)
            oldest = s;
    }
    if (oldest->sql && oldest->used_in == db->transaction)
        return err_set(e, ERR_INTERNAL, "more than %d statements in one transaction",
                       STATEMENTS_MAX);
    sqlite3_finalize(oldest->stmt);
    *oldest = (struct statement){};
    rc = sqlite3_prepare_v3(db->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, &oldest->stmt, NULL);
    if (rc != SQLITE_OK)
        return set_error(db, rc, "prepare", e);
    oldest->sql = sql;
    oldest->used_in = db->transaction;
    *ret = oldest->stmt;
    return 0;
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
        return set_error(txn->db, rc, sqlite3_stmt_readonly(stmt) ? "read" : "write", e);
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
            return set_error(txn->db, rc, "bind", e);
    }
    while ((r = db_step(txn, stmt, e)) > 0)
        ;
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
    return r < 0 ? r : sqlite3_changes(txn->db->sqlite);
}

int db_bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    return sqlite3_bind_text(stmt, index, text, -1, SQLITE_TRANSIENT) == SQLITE_OK ? 0 : -ENOMEM;
}

int db_bind_time(sqlite3_stmt *stmt, int index, struct timespec t)
{
    t.tv_sec = MIN_OF(MAX_OF(t.tv_sec, -SECONDS_MAX), SECONDS_MAX);
    return sqlite3_bind_int64(stmt, index, (int64_t)t.tv_sec * 1000000000 + t.tv_nsec) == SQLITE_OK
               ? 0
               : -ENOMEM;
}

struct timespec db_column_time(sqlite3_stmt *stmt, int column)
{
    int64_t n = sqlite3_column_int64(stmt, column);
    int64_t seconds = n / 1000000000, rest = n % 1000000000;

    if (rest < 0) {
        seconds--;
        rest += 1000000000;
    }
    return (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

const char *db_column_text(sqlite3_stmt *stmt, int column)
{
    return str_or_empty((const char *)sqlite3_column_text(stmt, column));
}

char *db_column_dup(sqlite3_stmt *stmt, int column)
{
    return strdup(db_column_text(stmt, column));
}

void db_release_memory(struct db *db)
{
    pthread_mutex_lock(&db->lock);
    sqlite3_db_release_memory(db->sqlite);
    pthread_mutex_unlock(&db->lock);
}

uint64_t db_mutations(const struct db *db)
{
    return atomic_load(&db->mutations);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db_conn.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/str.h"

#define CACHE_KIB 512
#define LOOKASIDE_SLOT_BYTES 512
#define LOOKASIDE_SLOTS 32

int db_conn_damaged(struct db_conn *c, const char *why, struct err *e)
{
    return err_set(
        e, ERR_DATA_LOSS,
        "metadata database %s is damaged (%s): restore it from a backup, or move it away "
        "to start with an empty one",
        c->path, why);
}

int db_conn_error(struct db_conn *c, int rc, const char *what, struct err *e)
{
    int errnum = c->sqlite ? sqlite3_system_errno(c->sqlite) : 0;
    const char *text = c->sqlite ? sqlite3_errmsg(c->sqlite) : sqlite3_errstr(rc);

    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return err_oom(e);
    case SQLITE_FULL:
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "%s in metadata database %s: no space left on device", what, c->path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return db_conn_damaged(c, text, e);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(e, ERR_UNAVAILABLE,
                       "metadata database %s is in use by another process: unavailable", c->path);
    case SQLITE_READONLY:
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s in metadata database %s: read-only file system: failed precondition",
                       what, c->path);
    case SQLITE_TOOBIG:
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "%s in metadata database %s: value too large",
                       what, c->path);
    case SQLITE_IOERR:
        if (errnum == ENOSPC || errnum == EDQUOT)
            return err_set(e, ERR_RESOURCE_EXHAUSTED, "%s in metadata database %s: %s", what,
                           c->path, err_strerror(errnum));
        return err_errno(e, errnum ? -errnum : -EIO, "%s in metadata database %s", what, c->path);
    case SQLITE_CANTOPEN:
        return err_errno(e, errnum ? -errnum : -EIO, "%s metadata database %s", what, c->path);
    default:
        return err_set(e, ERR_UNKNOWN, "%s in metadata database %s: %s", what, c->path, text);
    }
}

int db_conn_run(struct db_conn *c, const char *sql, const char *what, struct err *e)
{
    int rc = sqlite3_exec(c->sqlite, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : db_conn_error(c, rc, what, e);
}

int db_conn_run_number(struct db_conn *c, const char *format, int64_t n, const char *what,
                       struct err *e)
{
    char sql[64];

    sqlite3_snprintf(sizeof(sql), sql, format, n);
    return db_conn_run(c, sql, what, e);
}

int db_conn_ask(struct db_conn *c, const char *sql, int64_t *ret, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(c->sqlite, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        *ret = sqlite3_column_int64(stmt, 0);
        rc = SQLITE_OK;
    }
    int r =
        rc == SQLITE_OK ? 0 : db_conn_error(c, rc == SQLITE_DONE ? SQLITE_ERROR : rc, "read", e);
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

int db_conn_open_file(const char *path, int *ret_fd, struct err *e)
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

bool db_conn_was_left_open(const char *path)
{
    _free_ char *wal = str_printf("%s-wal", path);
    struct stat st;

    return wal && stat(wal, &st) == 0 && st.st_size > 0;
}

int db_conn_open(struct db_conn *c, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int r;

    pthread_once(&once, set_up_process);
    int rc = sqlite3_open_v2(c->path, &c->sqlite,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                             NULL);
    if (rc != SQLITE_OK)
        return db_conn_error(c, rc, "open", e);
    sqlite3_extended_result_codes(c->sqlite, 1);
    sqlite3_busy_timeout(c->sqlite, 0);
    sqlite3_db_config(c->sqlite, SQLITE_DBCONFIG_LOOKASIDE, NULL, LOOKASIDE_SLOT_BYTES,
                      LOOKASIDE_SLOTS);
    sqlite3_db_config(c->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(c->sqlite, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    r = db_conn_run(
        c,
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = FAST",
        "set up", e);
    if (r >= 0)
        r = db_conn_run_number(c, "PRAGMA cache_size = %lld", -CACHE_KIB, "set up", e);
    return r;
}

int db_conn_check_pages(struct db_conn *c, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(c->sqlite, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    int r = 0;

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc != SQLITE_ROW)
        r = db_conn_error(c, rc, "check", e);
    else if (!str_eq((const char *)sqlite3_column_text(stmt, 0), "ok"))
        r = db_conn_damaged(c, (const char *)sqlite3_column_text(stmt, 0), e);
    sqlite3_finalize(stmt);
    return r;
}

void db_conn_close(struct db_conn *c)
{
    sqlite3_close(c->sqlite);
    c->sqlite = NULL;
}

void db_conn_done(struct db_conn *c)
{
    db_conn_close(c);
    free(c->path);
    *c = (struct db_conn){};
}

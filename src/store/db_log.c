/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db_log.h"

#include "base/log.h"
#include "store/disk.h"

#define CHECKPOINT_PAGES 1000 /* in the log: time to copy them into the file */

/* Told after every commit how many pages are in the log. */
static int note_log_pages(void *userdata, sqlite3 *sqlite, const char *name, int pages)
{
    struct db_log *l = userdata;

    l->log_pages = pages;
    return SQLITE_OK;
}

void db_log_follow(struct db_log *l)
{
    sqlite3_wal_hook(l->conn->sqlite, note_log_pages, l);
}

/* Copies the log into the file; the next change then begins it anew. */
static void checkpoint(struct db_log *l)
{
    int in_log = 0, copied = 0;
    int rc = sqlite3_wal_checkpoint_v2(l->conn->sqlite, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log,
                                       &copied);
    struct err e = ERR_INIT;

    if (rc != SQLITE_OK) {
        db_conn_error(l->conn, rc, "checkpoint", &e);
        log_warn("%s", e.msg);
    } else if (in_log == copied) {
        l->log_pages = 0;
        db_reserve_cut(&l->reserve, l->pages);
    }
}

int db_log_have_room(struct db_log *l, int64_t pages, struct err *e)
{
    int r = db_reserve_have(&l->reserve, pages, l->log_pages);

    if (r < 0 && l->log_pages > 0 && sqlite3_get_autocommit(l->conn->sqlite)) {
        checkpoint(l);
        r = db_reserve_have(&l->reserve, pages, l->log_pages);
    }
    return r < 0 ? disk_error(e, r, "write in metadata database %s", l->conn->path) : 0;
}

int db_log_open(struct db_log *l, int *file_fd, struct err *e)
{
    struct err full = ERR_INIT;
    int64_t page_bytes = 0;
    int r;

    if ((r = db_conn_ask(l->conn, "PRAGMA page_size", &page_bytes, e)) < 0 ||
        (r = db_conn_ask(l->conn, "PRAGMA page_count", &l->pages, e)) < 0)
        return r;
    r = db_reserve_open(&l->reserve, l->conn->path, file_fd, page_bytes);
    if (r < 0)
        return err_errno(e, r, "open the log of metadata database %s", l->conn->path);
    if (db_log_have_room(l, l->pages, &full) < 0)
        log_warn("%s: nothing can be added until there is room", full.msg);
    return 0;
}

void db_log_grew(struct db_log *l, int64_t pages)
{
    l->pages = pages;
    if (l->log_pages >= CHECKPOINT_PAGES)
        checkpoint(l);
}

void db_log_done(struct db_log *l)
{
    db_reserve_leave(&l->reserve, l->conn->path);
    db_reserve_done(&l->reserve);
}

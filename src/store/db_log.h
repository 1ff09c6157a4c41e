/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log (WAL) of the metadata database: how much is in it, when it is copied into the file, and
 * whether both have blocks on disk for what comes next (db_reserve.h). Embedded in struct db, whose
 * lock guards it.
 */
#pragma once

#include "store/db_conn.h"
#include "store/db_reserve.h"

struct db_log {
    struct db_conn *conn;
    struct db_reserve reserve;
    int64_t pages;     /* of the database after the last change */
    int64_t log_pages; /* in the log that are not in the file yet */
};
#define DB_LOG_INIT(c)                          \
    {                                           \
        .conn = (c), .reserve = DB_RESERVE_INIT \
    }

/* On the connection just opened: counts what every commit puts into the log. */
void db_log_follow(struct db_log *l);
/* Once the database is in WAL mode. Takes file_fd (db_conn_open_file()). That there is no room is
 * not an error. */
int db_log_open(struct db_log *l, int *file_fd, struct err *e);
/* Blocks on disk for a database of so many pages; ERR_RESOURCE_EXHAUSTED when the disk is full. */
int db_log_have_room(struct db_log *l, int64_t pages, struct err *e);
/* After a commit that changed something: the database has so many pages now. May checkpoint. */
void db_log_grew(struct db_log *l, int64_t pages);
/* After the connection was closed. Leaves an empty log that has blocks. */
void db_log_done(struct db_log *l);

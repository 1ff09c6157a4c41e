/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the file of the metadata database, and what SQLite says on it.
 *
 * It is opened in exclusive locking mode: a second daemon on the same file is refused, and SQLite
 * keeps its index of the WAL on the heap instead of in a shared memory file. Embedded in struct db,
 * whose lock guards it.
 */
#pragma once

#include <sqlite3.h>

#include "base/attr.h"
#include "base/err.h"

struct db_conn {
    sqlite3 *sqlite; /* NULL: closed */
    char *path;      /* ours; there before db_conn_open() */
};

/* Makes the file with its mode (0600), and refuses what is not a plain file before SQLite touches
 * it. The descriptor has to stay open as long as SQLite has the file: closing it would drop the
 * locks. */
int db_conn_open_file(const char *path, int *ret_fd, struct err *e);
/* A WAL with something in it at the start means that the last owner did not close the file. */
bool db_conn_was_left_open(const char *path);

/* Opens c->path and sets up what does not change the file. A failure may leave it open. */
int db_conn_open(struct db_conn *c, struct err *e);
/* Reads the whole file: ERR_DATA_LOSS when it is damaged. */
int db_conn_check_pages(struct db_conn *c, struct err *e);
/* The last close of a database in WAL mode checkpoints and removes the WAL. No statement may be
 * left. The path stays. */
void db_conn_close(struct db_conn *c);
/* Closes it unless it has been, and frees the path. */
void db_conn_done(struct db_conn *c);

/* Texts of our own without parameters or rows; `what` is the verb of the sentence in e. */
int db_conn_run(struct db_conn *c, const char *sql, const char *what, struct err *e);
int db_conn_run_number(struct db_conn *c, const char *format, int64_t n, const char *what,
                       struct err *e) __attribute__((format(printf, 2, 0)));
/* The one number that a pragma or count answers. */
int db_conn_ask(struct db_conn *c, const char *sql, int64_t *ret, struct err *e);

/* What the connection says about the result code rc of the call just made: sets e, returns its
 * negative code. */
int db_conn_error(struct db_conn *c, int rc, const char *what, struct err *e);
int db_conn_damaged(struct db_conn *c, const char *why, struct err *e);

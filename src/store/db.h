/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The metadata database: one SQLite file in WAL mode, one connection, one lock.
 *
 * Every change of a call is one transaction. Between db_begin() and db_commit()/db_rollback() the
 * calling thread owns the connection; nothing but statements may happen in between (no file,
 * process or peer).
 *
 *     _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
 *     r = db_begin(db, DB_WRITE, &txn, e);
 *     ...
 *     return db_commit(&txn, e);                    an early return rolls back
 *
 * Durability: DB_WRITE is on disk when db_commit() returns (synchronous=FULL, one fdatasync of the
 * WAL). DB_WRITE_RELAXED is in the WAL but not synced: a crash of the daemon keeps it, a power cut
 * may lose the newest of them, never out of order; it serves leases and active snapshots, whose
 * loss the next GC or retry repairs. DB_REMOVE is the same for what removes records.
 *
 * On a full disk DB_REMOVE always works: room for it is kept back (db_reserve.h), and the commit of
 * any other change that would use it up is ERR_RESOURCE_EXHAUSTED.
 */
#pragma once

#include "base/err.h"
#include "base/strmap.h"
#include "store/db_value.h"

struct db;

enum db_mode { DB_READ, DB_WRITE, DB_WRITE_RELAXED, DB_REMOVE };

struct db_txn {
    struct db *db; /* NULL: none open */
    enum db_mode mode;
};
#define DB_TXN_INIT \
    {               \
        .db = NULL  \
    }

/* Opens (0600) or creates `path`, checks it (quick_check when the last end was not clean), migrates
 * the schema. A newer schema than ours is refused with a sentence and nothing is changed. */
int db_open(const char *path, struct db **ret, struct err *e);
/* Checkpoints the WAL and closes. Takes NULL. Returns NULL. */
struct db *db_close(struct db *db);
const char *db_path(const struct db *db);

int db_begin(struct db *db, enum db_mode mode, struct db_txn *ret, struct err *e);
int db_commit(struct db_txn *txn, struct err *e);
void db_rollback(struct db_txn *txn);
static inline void db_txn_done(struct db_txn *txn)
{
    db_rollback(txn);
}

/* Makes relaxed writes durable that are not yet; nothing to do is success. It comes before files
 * are removed that a power cut could otherwise give their records back. */
int db_sync(struct db *db, struct err *e);

/*
 * Statements are prepared once and cached by the address of their text, which therefore is a
 * literal. db_stmt() hands out a reset statement with bindings cleared; it is valid within the
 * transaction.
 */
int db_stmt(struct db_txn *txn, const char *sql, sqlite3_stmt **ret, struct err *e);
/* The same with text parameters 1 to n (NULL binds NULL), which are copied. */
int db_query(struct db_txn *txn, const char *sql, size_t n, const char *const *texts,
             sqlite3_stmt **ret, struct err *e);
/* 1: a row; 0: done; negative: error in e ("no space left on device" and the like are
 * ERR_RESOURCE_EXHAUSTED, corruption is ERR_DATA_LOSS). */
int db_step(struct db_txn *txn, sqlite3_stmt *stmt, struct err *e);
/* A statement without rows, with text parameters (NULL binds NULL): runs to the end. Returns the
 * number of changed rows. */
int db_exec(struct db_txn *txn, struct err *e, const char *sql, size_t n, const char *const *texts);

/* 1 when a query with text parameters has a row, 0 when it has none. */
int db_exists(struct db_txn *txn, struct err *e, const char *sql, size_t n,
              const char *const *texts);

/* Gives the page cache back; the next transactions fill it again from the file. */
void db_release_memory(struct db *db);

/* Rises with every committed write; the GC scheduler compares it. */
uint64_t db_mutations(const struct db *db);

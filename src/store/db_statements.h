/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements stay prepared in a small table that forgets the least recently used one. A statement
 * never outlives its transaction in a running state: the end of a transaction resets what it used
 * and drops its bindings, so that a large value is not kept by an idle statement. Embedded in
 * struct db, whose lock guards it.
 */
#pragma once

#include "store/db_conn.h"

#define DB_STATEMENTS_MAX 48

struct db_statement {
    const char *sql; /* by its address; NULL: free */
    sqlite3_stmt *stmt;
    uint64_t used_in; /* number of the transaction */
};

/* Begins with all zero. */
struct db_statements {
    struct db_statement statements[DB_STATEMENTS_MAX];
    uint64_t transaction; /* number of the running one */
};

/* Another transaction begins: what the one before has used may be forgotten. */
void db_statements_begin(struct db_statements *all);
/* The statement of this text, reset and without bindings; it is valid within the transaction. No
 * transaction may use more than DB_STATEMENTS_MAX (ERR_INTERNAL). */
int db_statements_get(struct db_statements *all, struct db_conn *c, const char *sql,
                      sqlite3_stmt **ret, struct err *e);
/* Statements of this transaction stop and forget their values. */
void db_statements_reset(struct db_statements *all);
/* Before the connection is closed. */
void db_statements_done(struct db_statements *all);

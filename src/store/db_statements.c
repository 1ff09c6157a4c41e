/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db_statements.h"

void db_statements_begin(struct db_statements *all)
{
    all->transaction++;
}

int db_statements_get(struct db_statements *all, struct db_conn *c, const char *sql,
                      sqlite3_stmt **ret, struct err *e)
{
    struct db_statement *oldest = &all->statements[0];
    int rc;

    for (size_t i = 0; i < DB_STATEMENTS_MAX; i++) {
        struct db_statement *s = &all->statements[i];
        if (s->sql == sql) {
            sqlite3_reset(s->stmt);
            sqlite3_clear_bindings(s->stmt);
            s->used_in = all->transaction;
            *ret = s->stmt;
            return 0;
        }
        if (s->used_in < oldest->used_in)
            oldest = s;
    }
    if (oldest->sql && oldest->used_in == all->transaction)
        return err_set(e, ERR_INTERNAL, "more than %d statements in one transaction",
                       DB_STATEMENTS_MAX);
    sqlite3_finalize(oldest->stmt);
    *oldest = (struct db_statement){};
    rc = sqlite3_prepare_v3(c->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, &oldest->stmt, NULL);
    if (rc != SQLITE_OK)
        return db_conn_error(c, rc, "prepare", e);
    oldest->sql = sql;
    oldest->used_in = all->transaction;
    *ret = oldest->stmt;
    return 0;
}

void db_statements_reset(struct db_statements *all)
{
    for (size_t i = 0; i < DB_STATEMENTS_MAX; i++) {
        struct db_statement *s = &all->statements[i];
        if (!s->stmt || s->used_in != all->transaction)
            continue;
        sqlite3_reset(s->stmt);
        sqlite3_clear_bindings(s->stmt);
    }
}

void db_statements_done(struct db_statements *all)
{
    for (size_t i = 0; i < DB_STATEMENTS_MAX; i++)
        sqlite3_finalize(all->statements[i].stmt);
    *all = (struct db_statements){};
}

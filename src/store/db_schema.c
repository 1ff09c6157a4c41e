/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db_schema.h"

#include "store/schema.h"

#define APPLICATION_ID 0x57727279 /* "Wrry" in the header of the file */

int db_schema_version(struct db_conn *c, int64_t *ret_version, struct err *e)
{
    int64_t version = 0, application = 0, tables = 0;
    int r;

    if ((r = db_conn_ask(c, "PRAGMA user_version", &version, e)) < 0 ||
        (r = db_conn_ask(c, "PRAGMA application_id", &application, e)) < 0 ||
        (r = db_conn_ask(c, "SELECT count(*) FROM sqlite_master", &tables, e)) < 0)
        return r;
    if (application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0))
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s is a database of another program: move it away", c->path);
    if (version > (int64_t)db_schema_n)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "metadata database %s has schema version %lld, this version knows %zu: "
                       "start the newer version that wrote it",
                       c->path, (long long)version, db_schema_n);
    if (version < 0)
        return db_conn_damaged(c, "negative schema version", e);
    *ret_version = version;
    return 0;
}

int db_schema_migrate(struct db_conn *c, int64_t version, struct err *e)
{
    int r = db_conn_run(c, "BEGIN IMMEDIATE", "begin", e);

    if (r >= 0 && version < (int64_t)db_schema_n)
        r = db_conn_run_number(c, "PRAGMA application_id = %lld", APPLICATION_ID, "set version", e);
    for (int64_t i = version; r >= 0 && i < (int64_t)db_schema_n; i++) {
        r = db_conn_run(c, db_schema[i], "create tables", e);
        if (r >= 0)
            r = db_conn_run_number(c, "PRAGMA user_version = %lld", i + 1, "set version", e);
    }
    if (r >= 0)
        r = db_conn_run(c, "COMMIT", "commit", e);
    if (r < 0 && !sqlite3_get_autocommit(c->sqlite))
        sqlite3_exec(c->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

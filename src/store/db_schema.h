/* SPDX-License-Identifier: Apache-2.0 */
/* The version of the tables in a database file, and its way to ours (schema/). */
#pragma once

#include "store/db_conn.h"

/* Nothing is changed. 0 for an empty file; ERR_FAILED_PRECONDITION with a sentence for a newer
 * version than ours and for another program's database. */
int db_schema_version(struct db_conn *c, int64_t *ret_version, struct err *e);
/* All missing steps from `version` on in one transaction. It is run when there is nothing to do,
 * too: its lock is what keeps other processes out from now on. */
int db_schema_migrate(struct db_conn *c, int64_t version, struct err *e);

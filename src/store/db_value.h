/* SPDX-License-Identifier: Apache-2.0 */
/* Columns and bindings of statements with our types. Texts are copied by the callee where kept. Times
 * are kept within what int64 nanoseconds can say. Bindings return 0 or -ENOMEM. */
#pragma once

#include <sqlite3.h>

#include "base/clock.h"

int db_bind_text(sqlite3_stmt *stmt, int index, const char *text);
int db_bind_time(sqlite3_stmt *stmt, int index, struct timespec t); /* int64 ns since 1970 */
struct timespec db_column_time(sqlite3_stmt *stmt, int column);
const char *db_column_text(sqlite3_stmt *stmt, int column); /* "" for NULL; until the next step */
char *db_column_dup(sqlite3_stmt *stmt, int column);

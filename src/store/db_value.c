/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db_value.h"

#include <errno.h>

#include "base/attr.h"
#include "base/str.h"

#define SECONDS_MAX INT64_C(9000000000) /* of a time, either way of 1970: the year 2255 */

int db_bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    return sqlite3_bind_text(stmt, index, text, -1, SQLITE_TRANSIENT) == SQLITE_OK ? 0 : -ENOMEM;
}

int db_bind_time(sqlite3_stmt *stmt, int index, struct timespec t)
{
    t.tv_sec = MIN_OF(MAX_OF(t.tv_sec, -SECONDS_MAX), SECONDS_MAX);
    return sqlite3_bind_int64(stmt, index, (int64_t)t.tv_sec * 1000000000 + t.tv_nsec) == SQLITE_OK
               ? 0
               : -ENOMEM;
}

struct timespec db_column_time(sqlite3_stmt *stmt, int column)
{
    int64_t n = sqlite3_column_int64(stmt, column);
    int64_t seconds = n / 1000000000, rest = n % 1000000000;

    if (rest < 0) {
        seconds--;
        rest += 1000000000;
    }
    return (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

const char *db_column_text(sqlite3_stmt *stmt, int column)
{
    return str_or_empty((const char *)sqlite3_column_text(stmt, column));
}

char *db_column_dup(sqlite3_stmt *stmt, int column)
{
    return strdup(db_column_text(stmt, column));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks on disk that the metadata database has before it needs them, so that removals work when
 * the disk is full, and as many of them as there are records.
 *
 * Two files take room: the log (WAL), to whose end every transaction writes the pages that it
 * changed, and the database file, into which a checkpoint copies them. A transaction writes a page
 * to the log once, so with n pages in the database no transaction takes more than n frames. Hence
 * the rule: the log has blocks for what is in it and n frames more, the file has blocks for n
 * pages. Then a checkpoint, after which the log begins anew, always works, and so does the next
 * transaction. A change that makes the database larger than the rule can be kept for is refused.
 *
 * Blocks are had by fallocate(2) and hold where a file system overwrites in place; where it knows
 * no fallocate(2) nothing is reserved and nothing refused. The database's lock guards a reserve.
 */
#pragma once

#include "base/attr.h"

struct db_reserve {
    int file_fd; /* stays open as long as SQLite has the file: closing it would drop its locks */
    int log_fd;
    int64_t page_bytes;
    int64_t file_bytes, log_bytes; /* from the beginning of each on, that have blocks */
    bool is_off;
};
#define DB_RESERVE_INIT                     \
    {                                       \
        .file_fd = -EBADF, .log_fd = -EBADF \
    }

/* Begins with nothing reserved. The log of the database at `path` is there. Takes file_fd. */
int db_reserve_open(struct db_reserve *r, const char *path, int *file_fd, int64_t page_bytes);
void db_reserve_done(struct db_reserve *r);

/* Keeps the rule for a database of `pages` pages with `log_pages` in its log. Negative: -ENOSPC,
 * -EDQUOT or another errno of fallocate(2). */
int db_reserve_have(struct db_reserve *r, int64_t pages, int64_t log_pages);
/* A checkpoint cut the file to this size. */
void db_reserve_cut(struct db_reserve *r, int64_t pages);
/* The database was closed, whereby SQLite has removed its log: makes an empty one that has the
 * blocks, for whoever opens the database on a full disk. */
void db_reserve_leave(const struct db_reserve *r, const char *path);

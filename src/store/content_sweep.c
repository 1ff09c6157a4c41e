/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the content store that no record names. What is on disk is listed first and the records
 * are read afterwards: whatever was listed had its record by then, if it was ever to have one
 * (blobs between their rename and their record are looked at once more under sweep_lock).
 */
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "store/content_store.h"
#include "store/disk.h"

#define SWEEP_BATCH 64

/* Names of a directory without the dotted ones. */
static int list_names(int dir_fd, const char *path, char ***ret)
{
    char **names = NULL;
    struct dirent *entry;
    DIR *dir;
    int r = fs_open_dir(dir_fd, path, &dir);

    if (r < 0)
        return r;
    size_t n = 0, allocated = 0;
    while (r >= 0 && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.')
            continue;
        if (n + 2 > allocated) {
            allocated = allocated ? 2 * allocated : 64;
            char **grown = reallocarray(names, allocated, sizeof(*names));
            if (!grown) {
                r = -ENOMEM;
                break;
            }
            names = grown;
        }
        names[n] = strdup(entry->d_name);
        r = names[n] ? 0 : -ENOMEM;
        n += names[n] ? 1 : 0;
        names[n] = NULL;
    }
    closedir(dir);
    if (r < 0) {
        strv_free(names);
        return r;
    }
    *ret = names;
    return 0;
}

static int is_recorded(struct content_store *s, struct db_txn *txn, const char *digest,
                       struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn, "SELECT 1 FROM content WHERE digest = ? LIMIT 1", &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, digest);
    return db_step(txn, stmt, e);
}

/* Looks once more, with commits held off, and unlinks. */
static int remove_blob(struct content_store *s, const char *digest, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    char path[DIGEST_STR_MAX];
    int r;

    content_blob_path(digest, path);
    pthread_rwlock_wrlock(&s->sweep_lock);
    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = is_recorded(s, &txn, digest, e);
    db_rollback(&txn);
    if (r == 0 && unlinkat(s->blobs_fd, path, 0) < 0 && errno != ENOENT)
        log_warn("remove unreferenced content %s: %s", digest, err_strerror(errno));
    pthread_rwlock_unlock(&s->sweep_lock);
    return r < 0 ? r : 0;
}

/* Sets orphans[i] for those of the n names that are blobs without a record. */
static int find_orphans(struct content_store *s, const char *algorithm, char *const *names,
                        size_t n, bool *orphans, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    char digest[DIGEST_STR_MAX];
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    for (size_t i = 0; i < n && r >= 0; i++) {
        snprintf(digest, sizeof(digest), "%s:%.*s", algorithm, DIGEST_STR_MAX - 10, names[i]);
        orphans[i] = false;
        if (!digest_is_valid(digest))
            continue;
        r = is_recorded(s, &txn, digest, e);
        orphans[i] = r == 0;
    }
    return r < 0 ? r : 0;
}

static int sweep_blobs(struct content_store *s, enum digest_algorithm algorithm, struct err *e)
{
    const char *dir = digest_algorithm_name(algorithm);
    _cleanup_(strv_freep) char **names = NULL;
    bool orphans[SWEEP_BATCH];
    char digest[DIGEST_STR_MAX];
    size_t total;
    int r;

    r = list_names(s->blobs_fd, dir, &names);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return disk_error(e, r, "list blobs/%s", dir);
    total = strv_len(names);
    for (size_t at = 0; at < total && r >= 0; at += SWEEP_BATCH) {
        size_t n = MIN_OF((size_t)SWEEP_BATCH, total - at);
        r = find_orphans(s, dir, names + at, n, orphans, e);
        for (size_t i = 0; i < n && r >= 0; i++) {
            if (!orphans[i])
                continue;
            snprintf(digest, sizeof(digest), "%s:%.*s", dir, DIGEST_STR_MAX - 10, names[at + i]);
            r = remove_blob(s, digest, e);
        }
    }
    return r;
}

/* The names of all ingests on record. */
static int read_ingest_names(struct content_store *s, struct map *names, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    char name[INGEST_NAME_MAX];
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn, "SELECT backend_ref FROM ingests", &stmt, e);
    while (r >= 0 && (r = db_step(&txn, stmt, e)) > 0) {
        content_ingest_name(db_column_text(stmt, 0), name);
        r = map_set(names, name, s);
        if (r < 0)
            return err_oom(e);
    }
    return r;
}

static bool is_being_written(struct content_store *s, const char *name)
{
    bool found = false;

    pthread_mutex_lock(&s->lock);
    MAP_FOREACH (entry, &s->writers) {
        struct content_writer *w = entry->value;
        found = found || str_eq(w->name, name);
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

int content_sweep_ingests(struct content_store *s, struct err *e)
{
    _cleanup_(strv_freep) char **names = NULL;
    _cleanup_(map_done) struct map recorded = MAP_INIT;
    int r;

    r = list_names(s->ingest_fd, ".", &names);
    if (r < 0)
        return disk_error(e, r, "list ingests");
    if (!names)
        return 0;
    r = read_ingest_names(s, &recorded, e);
    if (r < 0)
        return r;
    for (char **name = names; *name; name++) {
        if (map_get(&recorded, *name) || is_being_written(s, *name))
            continue;
        r = fs_rm_rf(s->ingest_fd, *name);
        if (r < 0)
            log_warn("remove ingest %s: %s", *name, err_strerror(r));
    }
    return 0;
}

int content_sweep(struct content_store *s, struct err *e)
{
    int r = content_sweep_ingests(s, e);

    for (enum digest_algorithm a = DIGEST_SHA256; a <= DIGEST_SHA512 && r >= 0; a++)
        r = sweep_blobs(s, a, e);
    return r;
}

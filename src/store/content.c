/* SPDX-License-Identifier: Apache-2.0 */
/* Blobs and their records: look up, list, label, delete, open. */
#include "store/content.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/log.h"
#include "base/str.h"
#include "store/content_store.h"
#include "store/disk.h"
#include "store/label_mask.h"
#include "store/labels.h"
#include "store/leases.h"

void content_info_done(struct content_info *i)
{
    free(i->digest);
    strmap_done(&i->labels);
    *i = (struct content_info){};
}

void content_status_done(struct content_status *s)
{
    free(s->ref);
    free(s->expected);
    *s = (struct content_status){};
}

void content_blob_path(const char *digest, char out[DIGEST_STR_MAX])
{
    enum digest_algorithm algorithm = DIGEST_SHA256;
    const char *hex = "";

    digest_split(digest, &algorithm, &hex);
    snprintf(out, DIGEST_STR_MAX, "%s/%s", digest_algorithm_name(algorithm), hex);
}

static int not_found(const char *digest, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "content digest %s: not found", digest);
}

/* The numbers of ingests go on behind those that are on record. */
static int seed_number(struct content_store *s, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r < 0)
        return r;
    r = db_stmt(&txn,
                "SELECT coalesce(max(CAST(substr(backend_ref, length(ns) + 2) AS INTEGER)), 0)"
                " FROM ingests",
                &stmt, e);
    if (r >= 0)
        r = db_step(&txn, stmt, e);
    if (r < 0)
        return r;
    s->next_number = r > 0 ? (uint64_t)sqlite3_column_int64(stmt, 0) + 1 : 1;
    return db_commit(&txn, e);
}

static int open_dirs(struct content_store *s, const char *root, struct err *e)
{
    _close_ int root_fd = -EBADF;
    int r;

    r = fs_open_private_dir(root, 0755, &root_fd);
    if (r >= 0)
        r = fs_mkdir_p(root_fd, "blobs/sha256", 0755);
    if (r >= 0)
        r = fs_mkdir_p(root_fd, "ingest", 0755);
    if (r >= 0)
        r = s->blobs_fd = neg_errno(openat(root_fd, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (r >= 0)
        r = s->ingest_fd = neg_errno(openat(root_fd, "ingest", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return r < 0 ? disk_error(e, r, "open content store %s", root) : 0;
}

int content_store_new(const char *root, struct db *db, enum content_sharing sharing,
                      struct content_store **ret, struct err *e)
{
    struct content_store *s = calloc(1, sizeof(*s));
    pthread_rwlockattr_t attr;
    int r;

    if (!s)
        return err_oom(e);
    s->blobs_fd = s->ingest_fd = -EBADF;
    s->db = db;
    s->sharing = sharing;
    pthread_mutex_init(&s->lock, NULL);
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&s->sweep_lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    r = open_dirs(s, root, e);
    if (r >= 0)
        r = seed_number(s, e);
    if (r >= 0) /* now, so that no leftover has the name of a new ingest */
        r = content_sweep_ingests(s, e);
    if (r < 0) {
        content_store_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct content_store *content_store_free(struct content_store *s)
{
    if (!s)
        return NULL;
    close_fd(&s->blobs_fd);
    close_fd(&s->ingest_fd);
    map_done(&s->writers);
    pthread_mutex_destroy(&s->lock);
    pthread_rwlock_destroy(&s->sweep_lock);
    free(s);
    return NULL;
}

/* Columns digest, size, created_at, updated_at. */
static int read_row(struct db_txn *txn, sqlite3_stmt *stmt, const char *ns,
                    struct content_info *ret, struct err *e)
{
    struct content_info i = {.digest = db_column_dup(stmt, 0)};
    int r;

    i.size_bytes = sqlite3_column_int64(stmt, 1);
    i.created_at = db_column_time(stmt, 2);
    i.updated_at = db_column_time(stmt, 3);
    r = i.digest ? labels_read(txn, ns, "content", i.digest, &i.labels, e) : err_oom(e);
    if (r < 0) {
        content_info_done(&i);
        return r;
    }
    *ret = i;
    return 0;
}

/* NOT_FOUND unless it is on record. */
static int read_info(struct db_txn *txn, const char *ns, const char *digest,
                     struct content_info *ret, struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(
        txn, "SELECT digest, size, created_at, updated_at FROM content WHERE ns = ? AND digest = ?",
        &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, digest);
    r = db_step(txn, stmt, e);
    if (r < 0)
        return r;
    if (r == 0)
        return not_found(digest, e);
    return read_row(txn, stmt, ns, ret, e);
}

int content_stat(struct content_store *s, const char *ns, const char *digest,
                 struct content_info *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r;

    r = digest_validate(digest, e);
    if (r >= 0)
        r = db_begin(s->db, DB_READ, &txn, e);
    if (r < 0)
        return r;
    return read_info(&txn, ns, digest, ret, e);
}

int content_find(struct db_txn *txn, const char *ns, const char *digest, int64_t *ret_size,
                 struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn, "SELECT size FROM content WHERE ns = ? AND digest = ?", &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, digest);
    r = db_step(txn, stmt, e);
    if (r > 0 && ret_size)
        *ret_size = sqlite3_column_int64(stmt, 0);
    return r;
}

int content_find_shared(struct content_store *s, struct db_txn *txn, const char *digest,
                        int64_t *ret_size, struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    if (s->sharing == CONTENT_SHARED)
        r = db_stmt(txn, "SELECT size FROM content WHERE digest = ? LIMIT 1", &stmt, e);
    else
        r = db_stmt(txn,
                    "SELECT c.size FROM content c JOIN labels l ON l.kind = 'namespace'"
                    " AND l.object = c.ns AND l.key = 'containerd.io/namespace.shareable'"
                    " AND l.value = 'true' WHERE c.digest = ? LIMIT 1",
                    &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, digest);
    r = db_step(txn, stmt, e);
    if (r > 0)
        *ret_size = sqlite3_column_int64(stmt, 0);
    return r;
}

static int read_batch(struct content_store *s, const char *ns, const char *after,
                      struct content_info *batch, size_t *n, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn,
                    "SELECT digest, size, created_at, updated_at FROM content"
                    " WHERE ns = ? AND digest > ? ORDER BY digest LIMIT 100",
                    &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, after);
    while (*n < CONTENT_BATCH && (r = db_step(&txn, stmt, e)) > 0) {
        r = read_row(&txn, stmt, ns, &batch[*n], e);
        if (r < 0)
            return r;
        ++*n;
    }
    return r;
}

static const char *info_field(const void *object, const char *const *path, size_t n)
{
    const struct content_info *i = object;
    char key[LABEL_MAX + 1];

    if (n == 1 && str_eq(path[0], "digest"))
        return i->digest;
    if (n > 1 && str_eq(path[0], "labels"))
        return strmap_get(&i->labels, filter_join_path(path, 1, n, key, sizeof(key)));
    return NULL;
}

int content_walk(struct content_store *s, const char *ns, const char *after,
                 const struct filter *filter,
                 int (*fn)(const struct content_info *i, void *userdata), void *userdata,
                 struct err *e)
{
    struct content_info *batch = calloc(CONTENT_BATCH, sizeof(*batch));
    _free_ char *last = strdup(str_or_empty(after));
    size_t n;
    int r;

    if (!batch || !last) {
        free(batch);
        return err_oom(e);
    }
    do {
        n = 0;
        r = read_batch(s, ns, last, batch, &n, e);
        for (size_t i = 0; i < n && r == 0; i++) {
            if (!filter || filter_matches(filter, info_field, &batch[i]))
                r = fn(&batch[i], userdata);
        }
        if (n > 0) {
            free(last);
            last = TAKE(batch[n - 1].digest);
        }
        for (size_t i = 0; i < n; i++)
            content_info_done(&batch[i]);
    } while (r == 0 && n == CONTENT_BATCH);
    free(batch);
    return r;
}

static int write_update(struct db_txn *txn, const char *ns, const struct content_info *i,
                        struct err *e)
{
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn, "UPDATE content SET updated_at = ? WHERE ns = ? AND digest = ?", &stmt, e);
    if (r < 0)
        return r;
    db_bind_time(stmt, 1, i->updated_at);
    db_bind_text(stmt, 2, ns);
    db_bind_text(stmt, 3, i->digest);
    r = db_step(txn, stmt, e);
    return r < 0 ? r : labels_write(txn, ns, "content", i->digest, &i->labels, e);
}

int content_update(struct content_store *s, const char *ns, const char *digest,
                   const struct strmap *labels, const char *const *paths, size_t n_paths,
                   struct content_info *ret, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(content_info_done) struct content_info i = {};
    int r;

    r = digest_validate(digest, e);
    if (r >= 0)
        r = db_begin(s->db, DB_WRITE, &txn, e);
    if (r >= 0)
        r = read_info(&txn, ns, digest, &i, e);
    if (r >= 0)
        r = label_mask_apply(&i.labels, labels, paths, n_paths, "content info", digest, e);
    if (r < 0)
        return r;
    i.updated_at = clock_realtime();
    r = write_update(&txn, ns, &i, e);
    strmap_done(&i.labels);
    if (r >= 0) /* as stored: empty values are not */
        r = labels_read(&txn, ns, "content", digest, &i.labels, e);
    if (r >= 0)
        r = db_commit(&txn, e);
    if (r < 0)
        return r;
    *ret = i;
    i = (struct content_info){};
    return 0;
}

int content_delete(struct content_store *s, const char *ns, const char *digest, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    const char *params[] = {ns, digest};
    int r;

    r = digest_validate(digest, e);
    if (r >= 0)
        r = db_begin(s->db, DB_REMOVE, &txn, e);
    if (r >= 0)
        r = db_exec(&txn, e, "DELETE FROM content WHERE ns = ? AND digest = ?", 2, params);
    if (r == 0)
        return not_found(digest, e);
    if (r > 0)
        r = labels_remove(&txn, ns, "content", digest, e);
    if (r >= 0)
        r = lease_detach(&txn, ns, "content", digest, e);
    return r < 0 ? r : db_commit(&txn, e);
}

int content_open(struct content_store *s, const char *ns, const char *digest, int *ret_fd,
                 int64_t *ret_size, struct err *e)
{
    _cleanup_(content_info_done) struct content_info i = {};
    _close_ int fd = -EBADF;
    char path[DIGEST_STR_MAX];
    struct stat st;
    int r;

    r = content_stat(s, ns, digest, &i, e);
    if (r < 0)
        return r;
    content_blob_path(digest, path);
    /* O_NONBLOCK: something else than a file was put there by hand */
    fd = neg_errno(openat(s->blobs_fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (fd == -ENOENT)
        return err_set(e, ERR_NOT_FOUND,
                       "content digest %s: its bytes are missing on disk: not found", digest);
    if (fd < 0)
        return disk_error(e, fd, "open content %s", digest);
    r = neg_errno(fstat(fd, &st));
    if (r < 0)
        return disk_error(e, r, "open content %s", digest);
    if (!S_ISREG(st.st_mode) || st.st_size != i.size_bytes)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "content digest %s is damaged on disk: %lld bytes, expected %lld: failed "
                       "precondition",
                       digest, (long long)st.st_size, (long long)i.size_bytes);
    *ret_fd = TAKE_FD(fd);
    *ret_size = st.st_size;
    return 0;
}

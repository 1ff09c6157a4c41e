/* SPDX-License-Identifier: Apache-2.0 */
/* The end of an ingest: its bytes become a blob, and the blob is recorded. */
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "store/content_store.h"
#include "store/disk.h"
#include "store/labels.h"
#include "store/leases.h"

static int check_expectations(struct content_writer *w, int64_t size, const char *expected,
                              const char *actual, struct err *e)
{
    if (atomic_load(&w->aborted))
        return err_set(e, ERR_NOT_FOUND, "reference %s was aborted: not found", w->ref);
    if (size > 0 && size != w->offset) {
        _free_ char *ref = str_quote(w->ref);
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s failed size validation: %lld != %lld: failed precondition",
                       str_or_empty(ref), (long long)w->offset, (long long)size);
    }
    if (!str_empty(expected) && !str_eq(expected, actual))
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "unexpected commit digest %s, expected %s: failed precondition", actual,
                       expected);
    return 0;
}

static int sync_blob_dir(struct content_store *s, const char *path)
{
    char dir[DIGEST_STR_MAX];
    _close_ int fd = -EBADF;

    snprintf(dir, sizeof(dir), "%.*s", (int)(strchr(path, '/') - path), path);
    fd = neg_errno(openat(s->blobs_fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return fd < 0 ? fd : neg_errno(fsync(fd));
}

/*
 * Gives the data its name. The ingest keeps its own until the record is made, so that a failing
 * record (a full disk) leaves an ingest that can be committed again. A file that is already there
 * is replaced: ours was verified a moment ago, of the other nobody knows.
 */
static int place_blob(struct content_writer *w, const char *path)
{
    struct content_store *s = w->store;
    int r;

    r = neg_errno(linkat(w->dir_fd, "data", s->blobs_fd, path, 0));
    if (r < 0)
        r = neg_errno(renameat(w->dir_fd, "data", s->blobs_fd, path));
    return r < 0 ? r : sync_blob_dir(s, path);
}

/* The record could not be made: the ingest gets its file back where a rename had taken it. */
static void restore_data(struct content_writer *w, const char *path)
{
    if (!fs_exists(w->dir_fd, "data") && linkat(w->store->blobs_fd, path, w->dir_fd, "data", 0) < 0)
        log_warn("ingest %s lost its bytes: %s", w->ref, err_strerror(errno));
}

int content_ingest_forget(struct db_txn *txn, const char *ns, const char *ref, struct err *e)
{
    const char *params[] = {ns, ref};
    int r, removed;

    removed = db_exec(txn, e, "DELETE FROM ingests WHERE ns = ? AND ref = ?", 2, params);
    if (removed < 0)
        return removed;
    r = lease_detach(txn, ns, "ingests", ref, e);
    return r < 0 ? r : removed > 0;
}

static int insert_content(struct content_writer *w, struct db_txn *txn, const char *digest,
                          const struct strmap *labels, struct err *e)
{
    struct timespec now = clock_realtime();
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn,
                "INSERT INTO content (ns, digest, size, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?)",
                &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, w->ns);
    db_bind_text(stmt, 2, digest);
    sqlite3_bind_int64(stmt, 3, w->offset);
    db_bind_time(stmt, 4, now);
    db_bind_time(stmt, 5, now);
    r = db_step(txn, stmt, e);
    return r < 0 || !labels ? r : labels_write(txn, w->ns, "content", digest, labels, e);
}

/* One transaction: the blob in, the ingest out, the lease moved from one to the other. 1: the
 * namespace had it already. */
static int record(struct content_writer *w, const char *digest, const struct strmap *labels,
                  struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int present, r;

    r = db_begin(w->store->db, DB_WRITE, &txn, e);
    if (r < 0)
        return r;
    present = content_find(&txn, w->ns, digest, NULL, e);
    if (present < 0)
        return present;
    if (!present)
        r = insert_content(w, &txn, digest, labels, e);
    if (r >= 0)
        r = content_ingest_forget(&txn, w->ns, w->ref, e);
    if (r >= 0)
        r = lease_attach(&txn, w->ns, w->lease, "content", digest, e);
    if (r >= 0)
        r = db_commit(&txn, e);
    return r < 0 ? r : present;
}

/* Under sweep_lock, shared. */
static int place_and_record(struct content_writer *w, const char *digest,
                            const struct strmap *labels, struct err *e)
{
    char path[DIGEST_STR_MAX];
    int r;

    content_blob_path(digest, path);
    if (w->shared_digest) {
        if (!fs_exists(w->store->blobs_fd, path))
            return err_set(e, ERR_UNAVAILABLE,
                           "content %s went away while it was being shared: unavailable", digest);
    } else {
        r = place_blob(w, path);
        if (r < 0)
            return disk_error(e, r, "commit content %s", digest);
    }
    r = record(w, digest, labels, e);
    if (r < 0 && !w->shared_digest)
        restore_data(w, path);
    return r;
}

static void remove_ingest(struct content_writer *w)
{
    char name[INGEST_NAME_MAX];
    int r;

    content_ingest_name(w->backend_ref, name);
    r = fs_rm_rf(w->store->ingest_fd, name);
    if (r < 0) /* the sweep tries again */
        log_warn("remove ingest %s: %s", w->ref, err_strerror(r));
}

/* What a failed sync leaves in the file nobody can tell, and the next one would not report it
 * again: such an ingest is given up. */
static int sync_data(struct content_writer *w, struct err *e)
{
    int r = neg_errno(fchmod(w->data_fd, 0444));

    if (r >= 0)
        r = neg_errno(fdatasync(w->data_fd));
    if (r >= 0)
        return 0;
    atomic_store(&w->aborted, true);
    remove_ingest(w);
    return disk_error(e, r, "sync ingest %s", w->ref);
}

int content_writer_commit(struct content_writer *w, int64_t size, const char *expected,
                          const struct strmap *labels, char **ret_digest, struct err *e)
{
    _free_ char *digest = NULL;
    int r;

    if (!str_empty(expected)) {
        r = digest_validate(expected, e);
        if (r < 0)
            return r;
    }
    r = content_writer_digest(w, &digest, e);
    if (r >= 0)
        r = check_expectations(w, size, expected, digest, e);
    if (r < 0)
        return r;
    if (!w->shared_digest) {
        r = sync_data(w, e);
        if (r < 0)
            return r;
    }
    pthread_rwlock_rdlock(&w->store->sweep_lock);
    r = place_and_record(w, digest, labels, e);
    pthread_rwlock_unlock(&w->store->sweep_lock);
    if (r < 0)
        return r;
    remove_ingest(w);
    if (r > 0)
        return err_set(e, ERR_ALREADY_EXISTS, "content %s: already exists", digest);
    *ret_digest = TAKE(digest);
    return 0;
}

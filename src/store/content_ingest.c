/* SPDX-License-Identifier: Apache-2.0 */
/* Ingests that nobody is writing to at the moment, as far as the caller knows: status, list, abort.
 */
#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"
#include "store/content_store.h"
#include "store/disk.h"

#define TOTAL_TEXT_MAX 32

int content_ingest_read(int dir_fd, struct content_status *ret)
{
    _free_ char *text = NULL;
    uint64_t total = 0;
    struct stat data, ref;
    int r;

    r = neg_errno(fstatat(dir_fd, "data", &data, AT_SYMLINK_NOFOLLOW));
    if (r < 0)
        return r;
    if (fstatat(dir_fd, "ref", &ref, AT_SYMLINK_NOFOLLOW) < 0)
        ref = data;
    if (fs_read_file(dir_fd, "total", TOTAL_TEXT_MAX, &text, NULL) >= 0 &&
        (str_to_u64(text, &total) < 0 || total > INT64_MAX))
        total = 0;
    ret->offset = data.st_size;
    ret->total = (int64_t)total;
    ret->started_at = ref.st_mtim;
    ret->updated_at = data.st_mtim;
    return 0;
}

/* An ingest on record. */
struct ingest {
    char *ref, *backend_ref, *expected;
    int64_t shared_size; /* of the blob it borrows from, -1: none */
};

static void ingest_done(struct ingest *i)
{
    free(i->ref);
    free(i->backend_ref);
    free(i->expected);
    *i = (struct ingest){};
}

/* Columns ref, backend_ref, expected, size of the blob expected. */
static int ingest_from_row(sqlite3_stmt *stmt, struct ingest *ret, struct err *e)
{
    struct ingest i = {
        .ref = db_column_dup(stmt, 0),
        .backend_ref = db_column_dup(stmt, 1),
        .expected = db_column_dup(stmt, 2),
    };

    if (!i.ref || !i.backend_ref || !i.expected) {
        ingest_done(&i);
        return err_oom(e);
    }
    i.shared_size =
        sqlite3_column_type(stmt, 3) == SQLITE_NULL ? -1 : sqlite3_column_int64(stmt, 3);
    *ret = i;
    return 0;
}

static int read_ingests(struct content_store *s, const char *ns, const char *after,
                        struct ingest *batch, size_t *n, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn,
                    "SELECT ref, backend_ref, expected,"
                    " (SELECT size FROM content c WHERE c.digest = expected LIMIT 1) FROM ingests"
                    " WHERE ns = ? AND ref > ? ORDER BY ref LIMIT 100",
                    &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, after);
    while (*n < CONTENT_BATCH && (r = db_step(&txn, stmt, e)) > 0) {
        r = ingest_from_row(stmt, &batch[*n], e);
        if (r < 0)
            return r;
        ++*n;
    }
    return r;
}

static int find_ingest(struct content_store *s, const char *ns, const char *ref, struct ingest *ret,
                       struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int r;

    r = db_begin(s->db, DB_READ, &txn, e);
    if (r >= 0)
        r = db_stmt(&txn,
                    "SELECT ref, backend_ref, expected,"
                    " (SELECT size FROM content c WHERE c.digest = expected LIMIT 1) FROM ingests"
                    " WHERE ns = ? AND ref = ?",
                    &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, ns);
    db_bind_text(stmt, 2, ref);
    r = db_step(&txn, stmt, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "reference %s: not found", ref);
    return r < 0 ? r : ingest_from_row(stmt, ret, e);
}

static int status_of(struct content_store *s, const struct ingest *i, struct content_status *ret,
                     struct err *e)
{
    struct content_status st = {};
    char name[INGEST_NAME_MAX];
    _close_ int dir_fd = -EBADF;
    int r;

    content_ingest_name(i->backend_ref, name);
    dir_fd = neg_errno(openat(s->ingest_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    r = dir_fd < 0 ? dir_fd : content_ingest_read(dir_fd, &st);
    if (r == -ENOENT) { /* just begun, or with borrowed bytes */
        st.started_at = st.updated_at = clock_realtime();
        st.offset = st.total = MAX_OF(i->shared_size, INT64_C(0));
    } else if (r < 0) {
        return disk_error(e, r, "read ingest %s", i->ref);
    }
    st.ref = strdup(i->ref);
    st.expected = strdup(i->expected);
    if (!st.ref || !st.expected) {
        content_status_done(&st);
        return err_oom(e);
    }
    *ret = st;
    return 0;
}

int content_status(struct content_store *s, const char *ns, const char *ref,
                   struct content_status *ret, struct err *e)
{
    _cleanup_(ingest_done) struct ingest i = {};
    int r = find_ingest(s, ns, ref, &i, e);

    return r < 0 ? r : status_of(s, &i, ret, e);
}

static const char *status_field(const void *object, const char *const *path, size_t n)
{
    const struct content_status *st = object;

    return n == 1 && str_eq(path[0], "ref") ? st->ref : NULL;
}

int content_walk_statuses(struct content_store *s, const char *ns, const struct filter *filter,
                          int (*fn)(const struct content_status *st, void *userdata),
                          void *userdata, struct err *e)
{
    struct ingest *batch = calloc(CONTENT_BATCH, sizeof(*batch));
    _free_ char *last = strdup("");
    size_t n;
    int r;

    if (!batch || !last) {
        free(batch);
        return err_oom(e);
    }
    do {
        n = 0;
        r = read_ingests(s, ns, last, batch, &n, e);
        for (size_t i = 0; i < n && r == 0; i++) {
            _cleanup_(content_status_done) struct content_status st = {};
            r = status_of(s, &batch[i], &st, e);
            if (r >= 0 && (!filter || filter_matches(filter, status_field, &st)))
                r = fn(&st, userdata);
        }
        if (n > 0) {
            free(last);
            last = TAKE(batch[n - 1].ref);
        }
        for (size_t i = 0; i < n; i++)
            ingest_done(&batch[i]);
    } while (r == 0 && n == CONTENT_BATCH);
    free(batch);
    return r;
}

/* Its writer, if there is one, may write on, but to nowhere. */
static void disown_writer(struct content_store *s, const char *name)
{
    pthread_mutex_lock(&s->lock);
    MAP_FOREACH (entry, &s->writers) {
        struct content_writer *w = entry->value;
        if (str_eq(w->name, name))
            atomic_store(&w->aborted, true);
    }
    pthread_mutex_unlock(&s->lock);
}

int content_abort(struct content_store *s, const char *ns, const char *ref, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(ingest_done) struct ingest i = {};
    char name[INGEST_NAME_MAX];
    int r;

    r = find_ingest(s, ns, ref, &i, e);
    if (r >= 0)
        r = db_begin(s->db, DB_REMOVE, &txn, e);
    if (r >= 0)
        r = content_ingest_forget(&txn, ns, ref, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "reference %s: not found", ref);
    if (r > 0)
        r = db_commit(&txn, e);
    if (r < 0)
        return r;
    content_ingest_name(i.backend_ref, name);
    disown_writer(s, name);
    r = fs_rm_rf(s->ingest_fd, name);
    return r < 0 ? disk_error(e, r, "remove ingest %s", ref) : 0;
}

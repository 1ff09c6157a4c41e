/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an ingest: who may write it, and its record. Its files are in content_writer.c. */
#include "base/fs.h"
#include "base/str.h"
#include "store/content_store.h"
#include "store/leases.h"

#define INGEST_LIFE_SECONDS (24 * 60 * 60)

static int already_exists(const char *digest, struct err *e)
{
    return err_set(e, ERR_ALREADY_EXISTS, "content %s: already exists", digest);
}

static int check_ref(const char *ref, struct err *e)
{
    size_t n = strlen(str_or_empty(ref));

    if (n == 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "reference must not be empty: invalid argument");
    if (n > CONTENT_REF_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "reference is longer than %d bytes: invalid argument", CONTENT_REF_MAX);
    for (const char *c = ref; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "reference holds a control character: invalid argument");
    }
    return 0;
}

static struct content_writer *writer_new(struct content_store *s, const char *ns, const char *lease,
                                         const char *ref)
{
    struct content_writer *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->store = s;
    w->dir_fd = w->data_fd = -EBADF;
    w->ns = strdup(ns);
    w->lease = strdup(str_or_empty(lease));
    w->ref = strdup(ref);
    w->opened_at = w->started_at = clock_realtime();
    w->hash = EVP_MD_CTX_new();
    if (!w->ns || !w->lease || !w->ref || !w->hash ||
        !EVP_DigestInit_ex(w->hash, EVP_sha256(), NULL))
        return content_writer_close(w);
    return w;
}

static void writer_freep(struct content_writer **w)
{
    content_writer_close(*w);
}

/* 0, or -EEXIST with the sentence about its holder. */
static int lock_ref(struct content_writer *w, struct err *e)
{
    struct content_store *s = w->store;
    _free_ char *key = str_printf("%s/%s", w->ns, w->ref);
    struct content_writer *holder;
    char since[CLOCK_RFC3339_MAX];
    int r;

    if (!key)
        return err_oom(e);
    pthread_mutex_lock(&s->lock);
    r = map_add(&s->writers, key, w);
    if (r == -EEXIST) {
        struct timespec now = clock_realtime();
        holder = map_get(&s->writers, key);
        clock_rfc3339(holder->opened_at, since);
        err_set(e, ERR_UNAVAILABLE, "ref %s locked for %.1fs (since %s): unavailable",
                holder->backend_ref ? holder->backend_ref : key,
                (double)(now.tv_sec - holder->opened_at.tv_sec) +
                    (double)(now.tv_nsec - holder->opened_at.tv_nsec) / 1e9,
                since);
    }
    pthread_mutex_unlock(&s->lock);
    if (r == -ENOMEM)
        return err_oom(e);
    if (r >= 0)
        w->key = TAKE(key);
    return r;
}

/* ALREADY_EXISTS, with the lease tied to the blob, when the namespace has it; else 0. */
static int check_present(struct db_txn *txn, const char *ns, const char *lease, const char *digest,
                         struct err *e)
{
    int r = content_find(txn, ns, digest, NULL, e);

    if (r <= 0)
        return r;
    r = lease_attach(txn, ns, lease, "content", digest, e);
    if (r >= 0)
        r = db_commit(txn, e);
    return r < 0 ? r : already_exists(digest, e);
}

/* The reference is taken: what that means when the blob is there already is another answer. */
static int locked_answer(struct content_writer *w, const char *expected, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    struct err present = ERR_INIT;
    int r = 0;

    if (str_empty(expected))
        return ERR_RETURN;
    r = db_begin(w->store->db, DB_WRITE_RELAXED, &txn, &present);
    if (r >= 0)
        r = check_present(&txn, w->ns, w->lease, expected, &present);
    if (r < 0 && e)
        *e = present;
    return ERR_RETURN;
}

static int insert_ingest(struct content_writer *w, struct db_txn *txn, struct err *e)
{
    struct content_store *s = w->store;
    sqlite3_stmt *stmt;
    uint64_t number;
    int r;

    pthread_mutex_lock(&s->lock);
    number = s->next_number++;
    w->backend_ref = str_printf("%s/%llu/%s", w->ns, (unsigned long long)number, w->ref);
    pthread_mutex_unlock(&s->lock);
    if (!w->backend_ref)
        return err_oom(e);
    r = db_stmt(txn,
                "INSERT INTO ingests (ns, ref, backend_ref, expected, expires_at)"
                " VALUES (?, ?, ?, '', 0)",
                &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, w->ns);
    db_bind_text(stmt, 2, w->ref);
    db_bind_text(stmt, 3, w->backend_ref);
    return db_step(txn, stmt, e);
}

/* 1 when there is one to be resumed. */
static int find_ingest(struct content_writer *w, struct db_txn *txn, struct err *e)
{
    sqlite3_stmt *stmt;
    char *backend_ref;
    int r;

    r = db_stmt(txn, "SELECT backend_ref FROM ingests WHERE ns = ? AND ref = ?", &stmt, e);
    if (r < 0)
        return r;
    db_bind_text(stmt, 1, w->ns);
    db_bind_text(stmt, 2, w->ref);
    r = db_step(txn, stmt, e);
    if (r <= 0)
        return r;
    backend_ref = db_column_dup(stmt, 0);
    if (!backend_ref)
        return err_oom(e);
    pthread_mutex_lock(&w->store->lock);
    w->backend_ref = backend_ref;
    pthread_mutex_unlock(&w->store->lock);
    return 1;
}

/* A leased ingest lives as long as its lease, another one for a day from now. The expected digest
 * is on record only when the blob is to be kept for it. */
static int refresh_ingest(struct content_writer *w, struct db_txn *txn, struct err *e)
{
    struct timespec expires = clock_realtime();
    sqlite3_stmt *stmt;
    int r;

    r = db_stmt(txn, "UPDATE ingests SET expected = ?, expires_at = ? WHERE ns = ? AND ref = ?",
                &stmt, e);
    if (r < 0)
        return r;
    expires.tv_sec += INGEST_LIFE_SECONDS;
    db_bind_text(stmt, 1, str_or_empty(w->shared_digest));
    if (*w->lease)
        sqlite3_bind_int64(stmt, 2, 0);
    else
        db_bind_time(stmt, 2, expires);
    db_bind_text(stmt, 3, w->ns);
    db_bind_text(stmt, 4, w->ref);
    r = db_step(txn, stmt, e);
    return r < 0 ? r : lease_attach(txn, w->ns, w->lease, "ingests", w->ref, e);
}

/* Uses a blob of another namespace when the policy allows and the size is not contradicted. */
static int try_share(struct content_writer *w, struct db_txn *txn, const char *expected,
                     bool on_disk, struct err *e)
{
    int64_t size = 0;
    int r = content_find_shared(w->store, txn, expected, &size, e);

    if (r <= 0 || !on_disk || (w->total > 0 && w->total != size))
        return r;
    w->shared_digest = strdup(expected);
    if (!w->shared_digest)
        return err_oom(e);
    w->offset = w->total = size;
    return 0;
}

/* The record of the ingest, found or made: 1 found. */
static int register_ingest(struct content_writer *w, const char *expected, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    char path[DIGEST_STR_MAX];
    bool on_disk = false;
    int found, r;

    if (!str_empty(expected)) {
        content_blob_path(expected, path);
        on_disk = fs_exists(w->store->blobs_fd, path);
    }
    r = db_begin(w->store->db, DB_WRITE_RELAXED, &txn, e);
    if (r >= 0 && !str_empty(expected))
        r = check_present(&txn, w->ns, w->lease, expected, e);
    if (r >= 0 && !str_empty(expected))
        r = try_share(w, &txn, expected, on_disk, e);
    if (r < 0)
        return r;
    found = find_ingest(w, &txn, e);
    if (found < 0)
        return found;
    if (found == 0)
        r = insert_ingest(w, &txn, e);
    if (r >= 0)
        r = refresh_ingest(w, &txn, e);
    if (r >= 0)
        r = db_commit(&txn, e);
    return r < 0 ? r : found;
}

int content_writer_open(struct content_store *s, const char *ns, const char *lease, const char *ref,
                        int64_t total, const char *expected, struct content_writer **ret,
                        struct err *e)
{
    _cleanup_(writer_freep) struct content_writer *w = NULL;
    int r;

    r = check_ref(ref, e);
    if (r >= 0 && !str_empty(expected))
        r = digest_validate(expected, e);
    if (r < 0)
        return r;
    w = writer_new(s, ns, lease, ref);
    if (!w)
        return err_oom(e);
    w->total = total > 0 ? total : 0;
    r = lock_ref(w, e);
    if (r == -EEXIST)
        return locked_answer(w, expected, e);
    if (r >= 0)
        r = register_ingest(w, expected, e);
    if (r >= 0 && !w->shared_digest)
        r = content_open_files(w, r == 0, e);
    if (r < 0)
        return r;
    *ret = TAKE(w);
    return 0;
}

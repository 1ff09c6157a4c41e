/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content: blobs by digest under <root>/io.containerd.content.v1.content, and unfinished writes
 * ("ingests") by reference. Bytes are shared by namespaces, records are not.
 *
 * A blob file is complete and verified when it has its name: data is written and fsynced in the
 * ingest directory, its digest compared, then renamed (0444) and the directory fsynced, then
 * recorded.
 */
#pragma once

#include "base/filter.h"
#include "store/db.h"

struct content_store;
struct content_writer;

struct content_info {
    char *digest;
    int64_t size_bytes;
    struct timespec created_at, updated_at;
    struct strmap labels;
};
struct content_status {
    char *ref;
    int64_t offset, total;
    char *expected; /* NULL or digest */
    struct timespec started_at, updated_at;
};
void content_info_done(struct content_info *i);
void content_status_done(struct content_status *s);

enum content_sharing { CONTENT_SHARED, CONTENT_ISOLATED };

/* root: the directory of the content plugin, made if missing. db is borrowed. */
int content_store_new(const char *root, struct db *db, enum content_sharing sharing,
                      struct content_store **ret, struct err *e);
struct content_store *content_store_free(struct content_store *s);

/* All errors in containerd's words (see the service). */
int content_stat(struct content_store *s, const char *ns, const char *digest,
                 struct content_info *ret, struct err *e);
/* Calls fn for each whose digest sorts behind `after` (NULL: all), in order of digest; stops at the
 * first non-zero result and returns it. No lock is held and no transaction open while fn runs. */
int content_walk(struct content_store *s, const char *ns, const char *after,
                 const struct filter *filter,
                 int (*fn)(const struct content_info *i, void *userdata), void *userdata,
                 struct err *e);
/* paths: NULL or the update mask. The result is the stored record. */
int content_update(struct content_store *s, const char *ns, const char *digest,
                   const struct strmap *labels, const char *const *paths, size_t n_paths,
                   struct content_info *ret, struct err *e);
int content_delete(struct content_store *s, const char *ns, const char *digest, struct err *e);
/* A read-only fd and the size. */
int content_open(struct content_store *s, const char *ns, const char *digest, int *ret_fd,
                 int64_t *ret_size, struct err *e);

/* One writer a reference at a time: UNAVAILABLE "ref NS/N/REF locked for ... (since ...)". Opening
 * an existing ingest resumes it (its bytes are hashed again). ALREADY_EXISTS when expected is
 * present in the namespace (with a lease, the blob is attached to it). */
int content_writer_open(struct content_store *s, const char *ns, const char *lease, const char *ref,
                        int64_t total, const char *expected, struct content_writer **ret,
                        struct err *e);
/* Keeps the ingest for a later resume. Takes NULL. Returns NULL. */
struct content_writer *content_writer_close(struct content_writer *w);
int content_writer_status(struct content_writer *w, struct content_status *ret, struct err *e);
/* Digest of the bytes so far. */
int content_writer_digest(struct content_writer *w, char **ret, struct err *e);
int content_writer_write(struct content_writer *w, const void *bytes, size_t n, struct err *e);
int content_writer_truncate(struct content_writer *w, struct err *e); /* to nothing */
/* size 0: unchecked; expected NULL: unchecked. The ingest is gone on success and on ALREADY_EXISTS.
 */
int content_writer_commit(struct content_writer *w, int64_t size, const char *expected,
                          const struct strmap *labels, char **ret_digest, struct err *e);

int content_status(struct content_store *s, const char *ns, const char *ref,
                   struct content_status *ret, struct err *e);
int content_walk_statuses(struct content_store *s, const char *ns, const struct filter *filter,
                          int (*fn)(const struct content_status *st, void *userdata),
                          void *userdata, struct err *e);
int content_abort(struct content_store *s, const char *ns, const char *ref, struct err *e);

/* For the GC, after its transaction: removes blobs and ingests on disk that no record names and
 * nobody writes. */
int content_sweep(struct content_store *s, struct err *e);

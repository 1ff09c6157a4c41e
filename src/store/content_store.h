/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the content store, shared by content*.c. Files:
 *
 *     blobs/<algorithm>/<hex>     a blob, 0444: complete and verified since it has its name
 *     ingest/<name>/ref           the backend reference as text; its mtime is when the ingest began
 *     ingest/<name>/data          the bytes so far; its mtime is when it was last written
 *     ingest/<name>/total         the announced size in decimal, if there was one
 *
 * <name> is the SHA-256 of the backend reference "<namespace>/<number>/<reference>". The number is
 * new for each ingest, so that what a removed one left behind is never taken for its successor's.
 *
 * Order of a commit: data synced, renamed, directory synced, recorded. A crash in between leaves a
 * blob without record, which the sweep removes. Between the rename and the record `sweep_lock` is
 * held shared; the sweep takes it for each blob that it unlinks, after looking for a record once
 * more.
 */
#pragma once

#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "oci/digest.h"
#include "store/content.h"

#define INGEST_NAME_MAX 65 /* hex of SHA-256 and NUL */
#define CONTENT_REF_MAX 4096
#define CONTENT_BATCH 100

struct content_store {
    int blobs_fd;
    int ingest_fd;
    struct db *db;
    enum content_sharing sharing;
    pthread_rwlock_t sweep_lock;
    pthread_mutex_t lock; /* of what follows */
    struct map writers;   /* "<ns>/<ref>" -> struct content_writer */
    uint64_t next_number;
};

struct content_writer {
    struct content_store *store;
    char *key; /* in store->writers */
    char *ns, *lease, *ref, *backend_ref;
    char name[INGEST_NAME_MAX]; /* "" until the record exists; store->lock */
    struct timespec opened_at;  /* for whoever finds the reference locked */
    struct timespec started_at;
    atomic_bool aborted; /* content_abort() took the ingest away */
    bool is_open;        /* the files below are there */
    int dir_fd, data_fd;
    int64_t offset, total;
    int64_t synced; /* bytes whose writing to disk was begun */
    EVP_MD_CTX *hash;
    char *shared_digest; /* the bytes are those of this blob, until something is written */
};

/* "sha256/<hex>" of a valid digest. */
void content_blob_path(const char *digest, char out[DIGEST_STR_MAX]);
void content_ingest_name(const char *backend_ref, char out[INGEST_NAME_MAX]);
/* What the files of an ingest say. -ENOENT: there is none. */
int content_ingest_read(int dir_fd, struct content_status *ret);
/* Whether a blob may be used by ns without its bytes: recorded elsewhere and shared. 1 and its
 * size, 0, negative. */
int content_find_shared(struct content_store *s, struct db_txn *txn, const char *digest,
                        int64_t *ret_size, struct err *e);
/* 1 with the size, 0, negative. */
int content_find(struct db_txn *txn, const char *ns, const char *digest, int64_t *ret_size,
                 struct err *e);
/* Opens, or makes, the files of a writer's ingest, and stands behind their last byte. fresh:
 * whatever is there goes. */
int content_open_files(struct content_writer *w, bool fresh, struct err *e);
/* Removes ingests that no record names and nobody writes. */
int content_sweep_ingests(struct content_store *s, struct err *e);
/* Takes the record of an ingest away. 1, 0 when there was none, negative. */
int content_ingest_forget(struct db_txn *txn, const char *ns, const char *ref, struct err *e);

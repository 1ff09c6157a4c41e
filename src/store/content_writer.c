/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of an ingest: resumed, appended to, begun anew. */
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/str.h"
#include "store/content_store.h"
#include "store/disk.h"

#define HASH_BLOCK (256 * 1024)            /* stays in the cache between write and hash */
#define WRITEBACK_STEP (INT64_C(16) << 20) /* bytes after which writing to disk is begun */
#define REHASH_BLOCK (1024 * 1024)

static int gone(const struct content_writer *w, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "reference %s was aborted: not found", w->ref);
}

void content_ingest_name(const char *backend_ref, char out[INGEST_NAME_MAX])
{
    uint8_t hash[EVP_MAX_MD_SIZE] = {};
    unsigned n = 32;

    EVP_Digest(backend_ref, strlen(backend_ref), hash, &n, EVP_sha256(), NULL);
    str_hex(hash, 32, out);
}

struct content_writer *content_writer_close(struct content_writer *w)
{
    if (!w)
        return NULL;
    if (w->key) {
        pthread_mutex_lock(&w->store->lock);
        map_remove(&w->store->writers, w->key);
        pthread_mutex_unlock(&w->store->lock);
    }
    close_fd(&w->dir_fd);
    close_fd(&w->data_fd);
    EVP_MD_CTX_free(w->hash);
    free(w->key);
    free(w->ns);
    free(w->lease);
    free(w->ref);
    free(w->backend_ref);
    free(w->shared_digest);
    free(w);
    return NULL;
}

static int rehash(struct content_writer *w, int64_t size)
{
    _free_ uint8_t *block = malloc(REHASH_BLOCK);
    ssize_t n;

    if (!block)
        return -ENOMEM;
    while (w->offset < size) {
        n = neg_errno(pread(w->data_fd, block, REHASH_BLOCK, w->offset));
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        EVP_DigestUpdate(w->hash, block, (size_t)n);
        w->offset += n;
    }
    return 0;
}

static int write_small(int dir_fd, const char *name, const char *text)
{
    return fs_write_file_atomic(dir_fd, name, text, strlen(text), 0644, false);
}

/* Opens what is there, makes what is missing; resumes where the data ends. */
static int open_data(struct content_writer *w)
{
    struct content_status status = {};
    char total[24];
    struct stat st;
    int r;

    w->dir_fd = neg_errno(
        openat(w->store->ingest_fd, w->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (w->dir_fd < 0)
        return w->dir_fd;
    if (!fs_exists(w->dir_fd, "ref")) {
        r = write_small(w->dir_fd, "ref", w->backend_ref);
        if (r < 0)
            return r;
    }
    w->data_fd =
        neg_errno(openat(w->dir_fd, "data", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (w->data_fd < 0)
        return w->data_fd;
    r = content_ingest_read(w->dir_fd, &status);
    if (r < 0)
        return r;
    w->started_at = status.started_at;
    if (w->total == 0) {
        w->total = status.total;
    } else if (w->total != status.total) {
        snprintf(total, sizeof(total), "%lld", (long long)w->total);
        r = write_small(w->dir_fd, "total", total);
    }
    if (r >= 0)
        r = neg_errno(fstat(w->data_fd, &st));
    return r < 0 ? r : rehash(w, st.st_size);
}

int content_open_files(struct content_writer *w, bool fresh, struct err *e)
{
    struct content_store *s = w->store;
    char name[INGEST_NAME_MAX];
    int r = 0;

    content_ingest_name(w->backend_ref, name);
    pthread_mutex_lock(&s->lock);
    memcpy(w->name, name, sizeof(name));
    pthread_mutex_unlock(&s->lock);
    if (fresh)
        r = fs_rm_rf(s->ingest_fd, name);
    if (r >= 0)
        r = neg_errno(mkdirat(s->ingest_fd, name, 0755));
    if (r == -EEXIST)
        r = 0;
    if (r >= 0)
        r = open_data(w);
    if (r < 0)
        return disk_error(e, r, "open ingest %s", w->ref);
    w->is_open = true;
    return 0;
}

int content_writer_status(struct content_writer *w, struct content_status *ret, struct err *e)
{
    struct content_status st = {
        .ref = strdup(w->ref),
        .offset = w->offset,
        .total = w->total,
        .started_at = w->started_at,
        .updated_at = w->started_at,
    };
    struct stat data;

    if (!st.ref)
        return err_oom(e);
    if (w->is_open && fstat(w->data_fd, &data) == 0)
        st.updated_at = data.st_mtim;
    *ret = st;
    return 0;
}

int content_writer_digest(struct content_writer *w, char **ret, struct err *e)
{
    EVP_MD_CTX *copy;
    uint8_t hash[EVP_MAX_MD_SIZE];
    char text[DIGEST_STR_MAX];
    bool ok;

    if (w->shared_digest) {
        *ret = strdup(w->shared_digest);
        return *ret ? 0 : err_oom(e);
    }
    copy = EVP_MD_CTX_new();
    ok = copy && EVP_MD_CTX_copy_ex(copy, w->hash) && EVP_DigestFinal_ex(copy, hash, NULL);
    EVP_MD_CTX_free(copy);
    if (!ok)
        return err_oom(e);
    digest_format(DIGEST_SHA256, hash, text);
    *ret = strdup(text);
    return *ret ? 0 : err_oom(e);
}

/* The first bytes of one file to the other, which is empty. */
static int copy_bytes(int from_fd, int to_fd, int64_t size)
{
    off_t from = 0, to = 0;

    while (to < size) {
        ssize_t n = neg_errno(copy_file_range(from_fd, &from, to_fd, &to, (size_t)(size - to), 0));
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
    }
    return 0;
}

static int copy_shared(struct content_writer *w, int64_t size)
{
    char path[DIGEST_STR_MAX];
    _close_ int fd = -EBADF;

    content_blob_path(w->shared_digest, path);
    fd = neg_errno(openat(w->store->blobs_fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return fd;
    int r = copy_bytes(fd, w->data_fd, size);
    return r < 0 ? r : rehash(w, size);
}

/* Somebody writes behind, or instead of, bytes that were only borrowed: now they are needed here.
 */
static int unshare_bytes(struct content_writer *w, bool keep, struct err *e)
{
    int64_t size = w->offset;
    int r;

    w->offset = 0;
    r = content_open_files(w, true, e);
    if (r < 0)
        return r;
    if (keep)
        r = copy_shared(w, size);
    if (r < 0)
        return disk_error(e, r, "copy content %s", w->shared_digest);
    free(TAKE(w->shared_digest));
    return 0;
}

/*
 * Blobs never change. What a commit has linked under its digest, and a crash or a failing record
 * has kept from being more than that, is the file of the ingest as well: to be written to, it goes
 * on in a file of its own.
 */
static int unlink_blob(struct content_writer *w, bool keep)
{
    _close_ int fd = -EBADF;
    struct stat st;

    if (fstat(w->data_fd, &st) < 0)
        return -errno;
    if (st.st_nlink < 2)
        return 0;
    fd = neg_errno(
        openat(w->dir_fd, "data.new", O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (fd < 0)
        return fd;
    int r = keep ? copy_bytes(w->data_fd, fd, w->offset) : 0;
    if (r >= 0)
        r = neg_errno(renameat(w->dir_fd, "data.new", w->dir_fd, "data"));
    if (r < 0)
        return r;
    close_fd(&w->data_fd);
    w->data_fd = TAKE_FD(fd);
    return 0;
}

/* Begins to write to disk what is complete, so that the sync at the end is short. */
static void begin_writeback(struct content_writer *w)
{
    if (w->offset - w->synced < WRITEBACK_STEP)
        return;
    sync_file_range(w->data_fd, w->synced, w->offset - w->synced, SYNC_FILE_RANGE_WRITE);
    w->synced = w->offset;
}

int content_writer_write(struct content_writer *w, const void *bytes, size_t n, struct err *e)
{
    const uint8_t *at = bytes;
    ssize_t wrote;
    int r = 0;

    if (atomic_load(&w->aborted))
        return gone(w, e);
    if (w->shared_digest)
        r = unshare_bytes(w, true, e);
    else if ((r = unlink_blob(w, true)) < 0)
        disk_error(e, r, "write to ingest %s", w->ref);
    if (r < 0)
        return r;
    while (n > 0) {
        wrote = neg_errno(pwrite(w->data_fd, at, MIN_OF(n, (size_t)HASH_BLOCK), w->offset));
        if (wrote == -EINTR)
            continue;
        if (wrote < 0) {
            r = disk_error(e, (int)wrote, "write to ingest %s", w->ref);
            break;
        }
        EVP_DigestUpdate(w->hash, at, (size_t)wrote);
        w->offset += wrote;
        at += wrote;
        n -= (size_t)wrote;
    }
    begin_writeback(w);
    return r;
}

int content_writer_truncate(struct content_writer *w, struct err *e)
{
    int r;

    if (atomic_load(&w->aborted))
        return gone(w, e);
    if (w->shared_digest)
        return unshare_bytes(w, false, e);
    r = unlink_blob(w, false);
    if (r >= 0)
        r = neg_errno(ftruncate(w->data_fd, 0));
    if (r < 0)
        return disk_error(e, r, "truncate failed: ingest %s", w->ref);
    w->offset = w->synced = 0;
    return EVP_DigestInit_ex(w->hash, EVP_sha256(), NULL) ? 0 : err_oom(e);
}

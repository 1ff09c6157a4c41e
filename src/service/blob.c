/* SPDX-License-Identifier: Apache-2.0 */
#include "service/blob.h"

#include "base/log.h"
#include "base/str.h"
#include "service/context.h"
#include "service/worker_job.h"
#include "store/content.h"
#include "store/gc.h"

#define LABEL_UNCOMPRESSED "containerd.io/uncompressed"

/* A blob on its way. */
struct ingest {
    const struct blob_place *place;
    struct content_writer *writer;
};

static int ingest_open(struct ingest *i, const struct blob_place *p, struct err *e)
{
    _cleanup_(content_status_done) struct content_status st = {};
    int r;

    *i = (struct ingest){.place = p};
    r = content_writer_open(p->ctx->content, p->ns, p->lease, p->ref, 0, NULL, &i->writer, e);
    if (r < 0)
        return err_wrap(e, "failed to open writer");
    r = content_writer_status(i->writer, &st, e);
    if (r >= 0 && st.offset > 0)
        r = content_writer_truncate(i->writer, e);
    return r;
}

/* Whatever is still open failed: nobody could go on with a part of it. */
static void ingest_done(struct ingest *i)
{
    struct err e = ERR_INIT;

    if (!i->writer)
        return;
    if (content_abort(i->place->ctx->content, i->place->ns, i->place->ref, &e) < 0 &&
        e.code != ERR_NOT_FOUND)
        log_warn("failed to delete ingest %s: %s", i->place->ref, e.msg);
    i->writer = content_writer_close(i->writer);
}

/* A worker_sink_fn. */
static int ingest_write(void *ingest, const void *bytes, size_t n, struct err *e)
{
    struct ingest *i = ingest;

    return content_writer_write(i->writer, bytes, n, e);
}

/* The blob was there before: it may lack the one label that says what it is, since it may have come
 * as an upload. */
static int complete_labels(const struct blob_place *p, const char *digest,
                           const struct strmap *labels, struct err *e)
{
    static const char *const mask[] = {"labels." LABEL_UNCOMPRESSED};
    const char *uncompressed = labels ? strmap_get(labels, LABEL_UNCOMPRESSED) : NULL;
    _cleanup_(content_info_done) struct content_info before = {}, after = {};
    int r = content_stat(p->ctx->content, p->ns, digest, &before, e);

    if (r < 0 || !uncompressed || strmap_get(&before.labels, LABEL_UNCOMPRESSED))
        return r;
    return content_update(p->ctx->content, p->ns, digest, labels, mask, ARRAY_SIZE(mask), &after,
                          e);
}

static int fill_descriptor(const char *media_type, const char *digest, int64_t size,
                           struct descriptor *ret, struct err *e)
{
    struct descriptor d = {
        .media_type = strdup(media_type), .digest = strdup(digest), .size = size};

    if (!d.media_type || !d.digest) {
        descriptor_done(&d);
        return err_oom(e);
    }
    *ret = d;
    return 0;
}

/* Ends the ingest, whatever comes of it. */
static int ingest_commit(struct ingest *i, const char *media_type, const struct strmap *labels,
                         struct descriptor *ret, struct err *e)
{
    const struct blob_place *p = i->place;
    _cleanup_(content_status_done) struct content_status st = {};
    struct err commit_err = ERR_INIT;
    _free_ char *digest = NULL;
    _free_ char *committed = NULL;
    int r;

    r = content_writer_digest(i->writer, &digest, e);
    if (r >= 0)
        r = content_writer_status(i->writer, &st, e);
    if (r < 0)
        return r;
    r = content_writer_commit(i->writer, 0, digest, labels, &committed, &commit_err);
    if (r >= 0 || commit_err.code == ERR_ALREADY_EXISTS)
        i->writer = content_writer_close(i->writer);
    if (r < 0 && commit_err.code == ERR_ALREADY_EXISTS) {
        r = complete_labels(p, digest, labels, e);
    } else if (r < 0) {
        if (e)
            *e = commit_err;
        r = err_wrap(e, "failed to commit");
    }
    if (r < 0)
        return r;
    gc_notify_mutation(p->ctx->gc);
    return fill_descriptor(media_type, digest, st.offset, ret, e);
}

static int label_uncompressed(const struct strmap *from, const char *digest, struct strmap *ret,
                              struct err *e)
{
    int r = from ? strmap_copy(ret, from) : 0;

    if (r >= 0 && *digest)
        r = strmap_set(ret, LABEL_UNCOMPRESSED, digest);
    if (r == -ENOBUFS)
        return err_set(e, ERR_INVALID_ARGUMENT, "more than %d labels: invalid argument",
                       STRMAP_MAX);
    return r < 0 ? err_oom(e) : 0;
}

int blob_store_layer(const struct blob_place *p, const struct blob_layer *layer,
                     struct descriptor *ret, struct err *e)
{
    _cleanup_(ingest_done) struct ingest i = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    char digest[DIGEST_STR_MAX];
    struct worker_diff job = {
        .worker_path = p->ctx->worker_path,
        .left_fd = layer->left_fd,
        .right_fd = layer->right_fd,
        .format = layer->format,
        .has_newest = layer->has_newest,
        .newest = layer->newest,
        .fn = ingest_write,
        .sink = &i,
        .call = p->call,
    };
    int r;

    r = ingest_open(&i, p, e);
    if (r < 0)
        return r;
    r = worker_diff(&job, digest, e);
    if (r < 0)
        return err_wrap(e, "failed to write diff");
    r = label_uncompressed(layer->labels, digest, &labels, e);
    return r < 0 ? r : ingest_commit(&i, layer->media_type, &labels, ret, e);
}

int blob_store_directory(const struct blob_place *p, int dir_fd, const char *media_type,
                         const struct strmap *labels, struct descriptor *ret, struct err *e)
{
    struct blob_layer layer = {
        .media_type = media_type,
        .format = "tar",
        .labels = labels,
        .left_fd = -EBADF,
        .right_fd = dir_fd,
    };

    return blob_store_layer(p, &layer, ret, e);
}

int blob_store_bytes(const struct blob_place *p, const void *bytes, size_t n,
                     const char *media_type, const struct strmap *labels, struct descriptor *ret,
                     struct err *e)
{
    _cleanup_(ingest_done) struct ingest i = {};
    int r;

    r = ingest_open(&i, p, e);
    if (r >= 0)
        r = ingest_write(&i, bytes, n, e);
    return r < 0 ? r : ingest_commit(&i, media_type, labels, ret, e);
}

int blob_unpack(const struct blob_place *p, const char *digest, int dir_fd, struct err *e)
{
    _close_ int blob_fd = -EBADF;
    struct worker_applied applied;
    int64_t size;
    int r;

    r = content_open(p->ctx->content, p->ns, digest, &blob_fd, &size, e);
    if (r < 0)
        return r;
    struct worker_apply job = {
        .worker_path = p->ctx->worker_path,
        .blob_fd = blob_fd,
        .target_fd = dir_fd,
        .format = "tar",
        .whiteouts = "plain",
        .call = p->call,
    };
    r = worker_apply(&job, &applied, e);
    if (r >= 0)
        r = worker_check_blob(&applied, digest, e);
    return r < 0 ? err_wrap(e, "failed to unpack %s", digest) : 0;
}

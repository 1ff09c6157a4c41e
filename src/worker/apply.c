/* SPDX-License-Identifier: Apache-2.0 */
#include "base/str.h"
#include "worker/feed.h"
#include "worker/job.h"
#include "worker/layer.h"

static void format_digest(const uint8_t hash[32], char out[72])
{
    memcpy(out, "sha256:", 7);
    str_hex(hash, 32, out + 7);
}

int apply_run(const struct apply_job *job, struct apply_result *ret, struct err *e)
{
    _cleanup_(tree_done) struct tree tree;
    _cleanup_(feed_done) struct feed feed = {0};
    struct apply_result result = {0};
    uint8_t blob_hash[32];

    tree_init(&tree, job->target_fd, job->whiteouts);
    tree.parent_fds = job->parent_fds;
    tree.n_parents = job->n_parents;
    tree.may_mknod = geteuid() == 0;

    int r = feed_start(&feed, job->in_fd, job->format, job->limits.max_bytes, true, e);
    if (r < 0)
        return r;
    r = layer_apply(&tree, feed_next, &feed, job->limits.max_entries, job->sync, &result.entries,
                    e);
    if (r < 0 || (r = feed_finish(&feed, e)) < 0)
        return r;
    r = decoder_blob(feed.decoder, blob_hash, &result.blob_size_bytes, e);
    if (r < 0)
        return r;
    result.size_bytes = feed.size_bytes;
    format_digest(feed.hash, result.digest);
    format_digest(blob_hash, result.blob_digest);
    *ret = result;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/digest.h"
#include "worker/drain.h"
#include "worker/job.h"
#include "worker/layer_writer.h"

/* The parts of the pipeline, put together and taken apart in one place. */
struct diff {
    struct drain drain;
    struct tar_writer tar;
    struct layer_writer layer;
};

static void diff_done(struct diff *d)
{
    layer_writer_done(&d->layer);
    tar_writer_done(&d->tar);
    drain_done(&d->drain);
}

int diff_run(const struct diff_job *job, struct diff_result *ret, struct err *e)
{
    _cleanup_(diff_done) struct diff d = {0};
    struct diff_result result = {0};
    bool is_compressed = job->format != DECODE_TAR;
    int r;

    r = drain_start(&d.drain, job->out_fd, job->format, is_compressed, e);
    if (r >= 0)
        r = tar_writer_init(&d.tar, drain_write, &d.drain, e);
    if (r >= 0)
        r = layer_writer_init(&d.layer, &d.tar, job->right_fd, job->limits.max_bytes,
                              job->limits.max_entries, e);
    if (r < 0)
        return r;
    d.layer.has_newest = job->has_newest;
    d.layer.newest = job->newest;
    r = changes_walk(job->left_fd, job->right_fd, layer_writer_add, &d.layer, e);
    if (r >= 0)
        r = tar_writer_finish(&d.tar, e);
    if (r >= 0)
        r = drain_finish(&d.drain, e);
    if (r < 0)
        return r;
    if (is_compressed)
        digest_format(DIGEST_SHA256, d.drain.hash, result.digest);
    result.size_bytes = d.drain.size_bytes;
    result.entries = d.layer.entries;
    *ret = result;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Diff service. Apply puts a layer into the mounts of a snapshot, wherever possible without
 * mounting anything: an overlay's new files belong into its upper directory, a bind mount's into
 * its source. Other mounts are made in a mount namespace that lives as long as the worker. The
 * bytes of the layer are read by wherry-worker alone. The other half, Diff, is in diff_compare.c.
 */
#include <fcntl.h>

#include "base/str.h"
#include "oci/image.h"
#include "service/context.h"
#include "service/diff_compare.h"
#include "service/mount_message.h"
#include "service/temp_mount.h"
#include "service/worker_job.h"
#include "services.diff.v1.pb-c.h"
#include "store/content.h"
#include "wire/pb.h"

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

/* An Apply under way. */
struct apply {
    struct grpc_call *call;
    struct service_context *ctx;
    const Pb__Types__Descriptor *layer;
    struct mount_list mounts;
    const char *format;
    int blob_fd;
    int target_fd;
    int parent_fds[WORKER_PARENTS_MAX];
    size_t n_parents;
    const char *whiteouts;
    bool sync;
    struct worker_applied result;
};

static struct apply *apply_new(struct grpc_call *call, const Pb__Diff__ApplyRequest *req)
{
    struct apply *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->call = call;
    a->ctx = grpc_call_userdata(call);
    a->layer = req->diff;
    a->sync = req->sync_fs;
    a->blob_fd = a->target_fd = -EBADF;
    return a;
}

static void apply_freep(struct apply **p)
{
    struct apply *a = *p;

    if (!a)
        return;
    close_fd(&a->blob_fd);
    close_fd(&a->target_fd);
    for (size_t i = 0; i < a->n_parents; i++)
        close_fd(&a->parent_fds[i]);
    mount_list_done(&a->mounts);
    free(a);
}

/* Which compression it is the bytes say better than the media type, and images are about whose type
 * is wrong. Plain tar is taken at its word. */
static int choose_format(struct apply *a, struct err *e)
{
    switch (image_layer_format(a->layer->media_type)) {
    case LAYER_AUTO:
    case LAYER_GZIP:
    case LAYER_ZSTD:
        a->format = "auto";
        return 0;
    case LAYER_TAR:
        a->format = "tar";
        return 0;
    case LAYER_NOT:
        break;
    }
    return err_set(e, ERR_UNIMPLEMENTED,
                   "failed to get stream processor for %s: currently unsupported media type: no "
                   "processor for media-type: not implemented",
                   a->layer->media_type);
}

/* The value of "name=value" in the options. */
static const char *option_value(char *const *options, const char *name)
{
    for (; options && *options; options++) {
        const char *value = str_after_prefix(*options, name);
        if (value && *value == '=')
            return value + 1;
    }
    return NULL;
}

static bool has_option(char *const *options, const char *name)
{
    for (; options && *options; options++) {
        if (str_eq(*options, name))
            return true;
    }
    return false;
}

static int open_target(struct apply *a, const char *path, const char *whiteouts, struct err *e)
{
    a->whiteouts = whiteouts;
    a->target_fd = neg_errno(open(path, OPEN_DIR));
    return a->target_fd < 0 ? err_errno(e, a->target_fd, "open %s", path) : 0;
}

/* Directories that the layer leaves out look as they do below. */
static int open_parents(struct apply *a, const char *lower, struct err *e)
{
    _free_ char *paths = strdup(str_or_empty(lower));
    char *rest = paths, *path;
    int fd;

    if (!paths)
        return err_oom(e);
    while ((path = strsep(&rest, ":"))) {
        if (!*path)
            continue;
        if (a->n_parents == WORKER_PARENTS_MAX)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "more than %d lower directories: invalid argument", WORKER_PARENTS_MAX);
        fd = neg_errno(open(path, OPEN_DIR));
        if (fd < 0)
            return err_errno(e, fd, "open lower directory %s", path);
        a->parent_fds[a->n_parents++] = fd;
    }
    return 0;
}

static int run_worker(struct apply *a, struct err *e)
{
    struct worker_apply job = {
        .worker_path = a->ctx->worker_path,
        .blob_fd = a->blob_fd,
        .target_fd = a->target_fd,
        .parent_fds = a->parent_fds,
        .n_parents = a->n_parents,
        .format = a->format,
        .whiteouts = a->whiteouts,
        .sync = a->sync,
        .call = a->call,
    };

    return worker_apply(&job, &a->result, e);
}

static int run_in_upper(struct apply *a, const struct mount *m, const char *upper, struct err *e)
{
    bool user = has_option(m->options, "userxattr");
    int r;

    r = open_target(a, upper, user ? "overlay-user" : "overlay", e);
    if (r >= 0)
        r = open_parents(a, option_value(m->options, "lowerdir"), e);
    return r < 0 ? r : run_worker(a, e);
}

/* In a mount namespace of its own. */
static int run_mounted(void *userdata, const int *fds, struct err *e)
{
    struct apply *a = userdata;

    a->whiteouts = "plain";
    a->target_fd = fds[0];
    int r = run_worker(a, e);
    a->target_fd = -EBADF;
    return r;
}

static int run(struct apply *a, struct err *e)
{
    const struct mount *m = a->mounts.mounts;

    if (a->mounts.n == 1 && str_empty(m->target)) {
        const char *upper = option_value(m->options, "upperdir");
        if (str_eq(m->type, "overlay") && upper)
            return run_in_upper(a, m, upper, e);
        if ((str_eq(m->type, "bind") || has_option(m->options, "bind") ||
             has_option(m->options, "rbind")) &&
            !has_option(m->options, "ro")) {
            int r = open_target(a, m->source, "plain", e);
            return r < 0 ? r : run_worker(a, e);
        }
    }
    return temp_mount_run(a->ctx->root, &a->mounts, 1, run_mounted, a, e);
}

static int fill_reply(const struct apply *a, Pb__Diff__ApplyResponse *reply, struct err *e)
{
    Pb__Types__Descriptor *d = service_message_new(&pb__types__descriptor__descriptor);

    if (!d)
        return err_oom(e);
    reply->applied = d;
    d->size = a->result.size_bytes;
    if (!service_set_string(&d->media_type, MEDIA_TYPE_OCI_LAYER) ||
        !service_set_string(&d->digest, a->result.digest))
        return err_oom(e);
    return 0;
}

static int apply(struct grpc_call *call, const Pb__Diff__ApplyRequest *req,
                 Pb__Diff__ApplyResponse *reply, struct err *e)
{
    _cleanup_(apply_freep) struct apply *a = NULL;
    int64_t size;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0)
        return r;
    if (!req->diff)
        return err_set(e, ERR_INVALID_ARGUMENT, "no layer descriptor given: invalid argument");
    if (req->n_mounts == 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "no mounts given: invalid argument");
    a = apply_new(call, req);
    if (!a)
        return err_oom(e);
    r = choose_format(a, e);
    if (r >= 0)
        r = mount_message_read_list(req->mounts, req->n_mounts, &a->mounts, e);
    if (r < 0)
        return r;
    r = content_open(a->ctx->content, ns, a->layer->digest, &a->blob_fd, &size, e);
    if (r < 0)
        return err_wrap(e, "failed to get reader from content store");
    r = run(a, e);
    if (r >= 0)
        r = worker_check_blob(&a->result, a->layer->digest, e);
    if (r < 0)
        return err_wrap(e, "failed to extract layer %s", a->layer->digest);
    return fill_reply(a, reply, e);
}

static void diff_apply(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Diff__ApplyResponse *reply = service_message_new(&pb__diff__apply_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? apply(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static const struct grpc_method methods[] = {
    {"Apply", GRPC_UNARY, GRPC_ON_POOL, &pb__diff__apply_request__descriptor, diff_apply},
    {"Diff", GRPC_UNARY, GRPC_ON_POOL, &pb__diff__diff_request__descriptor, diff_compare},
};

void diff_service_init(struct grpc_service *service, struct service_context *ctx)
{
    temp_mount_remove_old(ctx->root);
    *service = (struct grpc_service){
        .name = "containerd.services.diff.v1.Diff",
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .userdata = ctx,
    };
}

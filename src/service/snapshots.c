/* SPDX-License-Identifier: Apache-2.0 */
#include "store/snapshots.h"

#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "service/context.h"
#include "service/listing.h"
#include "service/mount_message.h"
#include "services.snapshots.v1.pb-c.h"
#include "store/gc.h"
#include "wire/pb.h"

/* Namespace and snapshotter, which every request names. */
struct target {
    const char *ns;
    struct snapshotter *snapshotter;
};

static int target_of(struct grpc_call *call, const char *snapshotter, struct target *ret,
                     struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    int r = service_namespace(call, &ret->ns, e);

    return r < 0 ? r : snapshotters_get(ctx->snapshotters, snapshotter, &ret->snapshotter, e);
}

static ProtobufCMessage *prepare_event(const char *snapshotter, const char *key, const char *parent)
{
    Pb__Event__SnapshotPrepare *m = service_message_new(&pb__event__snapshot_prepare__descriptor);

    if (m && service_set_string(&m->key, key) && service_set_string(&m->parent, parent) &&
        service_set_string(&m->snapshotter, snapshotter))
        return &m->base;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static ProtobufCMessage *commit_event(const char *snapshotter, const char *key, const char *name)
{
    Pb__Event__SnapshotCommit *m = service_message_new(&pb__event__snapshot_commit__descriptor);

    if (m && service_set_string(&m->key, key) && service_set_string(&m->name, name) &&
        service_set_string(&m->snapshotter, snapshotter))
        return &m->base;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static ProtobufCMessage *remove_event(const char *snapshotter, const char *key)
{
    Pb__Event__SnapshotRemove *m = service_message_new(&pb__event__snapshot_remove__descriptor);

    if (m && service_set_string(&m->key, key) && service_set_string(&m->snapshotter, snapshotter))
        return &m->base;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static int prepare(struct grpc_call *call, const Pb__Snapshots__PrepareSnapshotRequest *req,
                   Pb__Snapshots__PrepareSnapshotResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    struct target t;
    int r;

    if ((r = target_of(call, req->snapshotter, &t, e)) < 0)
        return r;
    if (pb_strmap_get((void *const *)req->labels, req->n_labels, &labels) < 0)
        return err_oom(e);
    r = snapshot_prepare(t.snapshotter, t.ns, service_lease(call), req->key, req->parent, &labels,
                         false, &mounts, e);
    if (r < 0)
        return r;
    gc_notify_mutation(ctx->gc);
    service_publish(ctx, t.ns, "/snapshot/prepare",
                    prepare_event(req->snapshotter, req->key, req->parent));
    if (mount_message_new_list(&mounts, &reply->mounts, &reply->n_mounts) < 0)
        return err_oom(e);
    return 0;
}

static void snapshots_prepare(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Snapshots__PrepareSnapshotResponse *reply =
        service_message_new(&pb__snapshots__prepare_snapshot_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? prepare(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int view(struct grpc_call *call, const Pb__Snapshots__ViewSnapshotRequest *req,
                Pb__Snapshots__ViewSnapshotResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    struct target t;
    int r;

    if ((r = target_of(call, req->snapshotter, &t, e)) < 0)
        return r;
    if (pb_strmap_get((void *const *)req->labels, req->n_labels, &labels) < 0)
        return err_oom(e);
    r = snapshot_prepare(t.snapshotter, t.ns, service_lease(call), req->key, req->parent, &labels,
                         true, &mounts, e);
    if (r < 0)
        return r;
    gc_notify_mutation(ctx->gc);
    if (mount_message_new_list(&mounts, &reply->mounts, &reply->n_mounts) < 0)
        return err_oom(e);
    return 0;
}

static void snapshots_view(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Snapshots__ViewSnapshotResponse *reply =
        service_message_new(&pb__snapshots__view_snapshot_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? view(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static void snapshots_mounts(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Snapshots__MountsRequest *req = (const void *)request;
    Pb__Snapshots__MountsResponse *reply =
        service_message_new(&pb__snapshots__mounts_response__descriptor);
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    struct err e = ERR_INIT;
    struct target t;
    int r = reply ? 0 : err_oom(&e);

    if (r >= 0 && (r = target_of(call, req->snapshotter, &t, &e)) >= 0 &&
        (r = snapshot_mounts(t.snapshotter, t.ns, req->key, &mounts, &e)) >= 0 &&
        mount_message_new_list(&mounts, &reply->mounts, &reply->n_mounts) < 0)
        r = err_oom(&e);
    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int commit(struct grpc_call *call, const Pb__Snapshots__CommitSnapshotRequest *req,
                  struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(strmap_done) struct strmap labels = {};
    struct target t;
    int r;

    if ((r = target_of(call, req->snapshotter, &t, e)) < 0)
        return r;
    if (pb_strmap_get((void *const *)req->labels, req->n_labels, &labels) < 0)
        return err_oom(e);
    r = snapshot_commit(t.snapshotter, t.ns, service_lease(call), req->name, req->key, &labels, e);
    if (r < 0)
        return r;
    gc_notify_mutation(ctx->gc);
    service_publish(ctx, t.ns, "/snapshot/commit",
                    commit_event(req->snapshotter, req->key, req->name));
    return 0;
}

static void snapshots_commit(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct err e = ERR_INIT;
    int r = commit(call, (const void *)request, &e);

    service_answer_empty(call, r, &e);
}

/* The directory goes after the answer. */
struct reap {
    struct workq_job job;
    struct snapshotter *snapshotter;
};

static void reap_run(struct workq_job *job)
{
    struct reap *reap = container_of(job, struct reap, job);

    snapshotter_reap(reap->snapshotter);
    free(reap);
}

static void reap_later(struct service_context *ctx, struct snapshotter *snapshotter)
{
    struct reap *reap = calloc(1, sizeof(*reap));

    if (reap)
        reap->snapshotter = snapshotter;
    if (!reap || workq_submit(ctx->pool, &reap->job, reap_run) < 0)
        free(reap); /* the sweep finds it */
}

static void snapshots_remove(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Snapshots__RemoveSnapshotRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    struct target t;
    int r;

    if ((r = target_of(call, req->snapshotter, &t, &e)) >= 0 &&
        (r = snapshot_remove(t.snapshotter, t.ns, req->key, &e)) >= 0) {
        service_publish(ctx, t.ns, "/snapshot/remove", remove_event(req->snapshotter, req->key));
        gc_notify_deletion(ctx->gc);
        reap_later(ctx, t.snapshotter);
    }
    service_answer_empty(call, r, &e);
}

static Pb__Snapshots__Info *info_message(const struct snapshot_info *i)
{
    Pb__Snapshots__Info *m = service_message_new(&pb__snapshots__info__descriptor);

    if (m) {
        m->kind = (Pb__Snapshots__Kind)i->kind;
        if (service_set_string(&m->name, i->name) && service_set_string(&m->parent, i->parent) &&
            (m->created_at = pb_timestamp_new(i->created_at)) &&
            (m->updated_at = pb_timestamp_new(i->updated_at)) &&
            pb_strmap_new(&i->labels, &pb__snapshots__info__labels_entry__descriptor,
                          (void ***)&m->labels, &m->n_labels) == 0)
            return m;
    }
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static void snapshots_stat(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Snapshots__StatSnapshotRequest *req = (const void *)request;
    Pb__Snapshots__StatSnapshotResponse *reply =
        service_message_new(&pb__snapshots__stat_snapshot_response__descriptor);
    _cleanup_(snapshot_info_done) struct snapshot_info i = {};
    struct err e = ERR_INIT;
    struct target t;
    int r = reply ? 0 : err_oom(&e);

    if (r >= 0 && (r = target_of(call, req->snapshotter, &t, &e)) >= 0 &&
        (r = snapshot_stat(t.snapshotter, t.ns, req->key, &i, &e)) >= 0 &&
        !(reply->info = info_message(&i)))
        r = err_oom(&e);
    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int update(struct grpc_call *call, const Pb__Snapshots__UpdateSnapshotRequest *req,
                  Pb__Snapshots__UpdateSnapshotResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const char *const *paths =
        req->update_mask ? (const char *const *)req->update_mask->paths : NULL;
    size_t n_paths = req->update_mask ? req->update_mask->n_paths : 0;
    _cleanup_(snapshot_info_done) struct snapshot_info i = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    struct target t;
    int r;

    if ((r = target_of(call, req->snapshotter, &t, e)) < 0)
        return r;
    if (req->info &&
        pb_strmap_get((void *const *)req->info->labels, req->info->n_labels, &labels) < 0)
        return err_oom(e);
    r = snapshot_update(t.snapshotter, t.ns, req->info ? req->info->name : "", &labels, paths,
                        n_paths, &i, e);
    if (r < 0)
        return r;
    gc_notify_mutation(ctx->gc);
    return (reply->info = info_message(&i)) ? 0 : err_oom(e);
}

static void snapshots_update(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Snapshots__UpdateSnapshotResponse *reply =
        service_message_new(&pb__snapshots__update_snapshot_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? update(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int list_one(const struct snapshot_info *i, void *listing)
{
    return listing_add(listing, i->name, (ProtobufCMessage *)info_message(i));
}

static int list_walk(struct listing *l, struct err *e)
{
    return snapshot_walk(l->source, l->ns, l->after, l->filter, list_one, l, e);
}

static void snapshots_list(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Snapshots__ListSnapshotsRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    struct target t;

    if (target_of(call, req->snapshotter, &t, &e) < 0)
        grpc_call_finish(call, &e);
    else
        listing_begin(call, &pb__snapshots__list_snapshots_response__descriptor, t.ns, req->filters,
                      req->n_filters, t.snapshotter, list_walk);
}

static void snapshots_usage(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Snapshots__UsageRequest *req = (const void *)request;
    Pb__Snapshots__UsageResponse *reply =
        service_message_new(&pb__snapshots__usage_response__descriptor);
    struct err e = ERR_INIT;
    struct target t;
    int r = reply ? 0 : err_oom(&e);

    if (r >= 0 && (r = target_of(call, req->snapshotter, &t, &e)) >= 0)
        r = snapshot_usage(t.snapshotter, t.ns, req->key, &reply->size, &reply->inodes, &e);
    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static void snapshots_cleanup(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Snapshots__CleanupRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    struct target t;
    int r;

    if ((r = target_of(call, req->snapshotter, &t, &e)) >= 0)
        r = snapshotter_sweep(t.snapshotter, &e);
    service_answer_empty(call, r, &e);
}

static const struct grpc_method methods[] = {
    {"Cleanup", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__cleanup_request__descriptor,
     snapshots_cleanup},
    {"Commit", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__commit_snapshot_request__descriptor,
     snapshots_commit},
    {"List", GRPC_SERVER_STREAM, GRPC_ON_POOL, &pb__snapshots__list_snapshots_request__descriptor,
     snapshots_list},
    {"Mounts", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__mounts_request__descriptor,
     snapshots_mounts},
    {"Prepare", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__prepare_snapshot_request__descriptor,
     snapshots_prepare},
    {"Remove", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__remove_snapshot_request__descriptor,
     snapshots_remove},
    {"Stat", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__stat_snapshot_request__descriptor,
     snapshots_stat},
    {"Update", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__update_snapshot_request__descriptor,
     snapshots_update},
    {"Usage", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__usage_request__descriptor, snapshots_usage},
    {"View", GRPC_UNARY, GRPC_ON_POOL, &pb__snapshots__view_snapshot_request__descriptor,
     snapshots_view},
};

void snapshots_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){
        .name = "containerd.services.snapshots.v1.Snapshots",
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .userdata = ctx,
    };
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store/leases.h"

#include "base/str.h"
#include "service/context.h"
#include "services.leases.v1.pb-c.h"
#include "store/gc.h"
#include "wire/pb.h"

static Pb__Leases__Lease *lease_message(const struct lease *l)
{
    Pb__Leases__Lease *m = service_message_new(&pb__leases__lease__descriptor);

    if (m && service_set_string(&m->id, l->id) &&
        (m->created_at = pb_timestamp_new(l->created_at)) &&
        pb_strmap_new(&l->labels, &pb__leases__lease__labels_entry__descriptor,
                      (void ***)&m->labels, &m->n_labels) == 0)
        return m;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static int create(struct grpc_call *call, const Pb__Leases__CreateRequest *req,
                  Pb__Leases__CreateResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(strmap_done) struct strmap labels = {};
    _cleanup_(lease_done) struct lease l = {};
    struct timespec expiry;
    const char *ns, *expire;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0)
        return r;
    if (pb_strmap_get((void *const *)req->labels, req->n_labels, &labels) < 0)
        return err_oom(e);
    if ((r = lease_create(ctx->db, ns, req->id, &labels, &l, e)) < 0)
        return r;
    expire = strmap_get(&l.labels, "containerd.io/gc.expire");
    if (expire && clock_parse_rfc3339(expire, &expiry) == 0)
        gc_notify_expiry(ctx->gc, expiry);
    gc_notify_mutation(ctx->gc);
    return (reply->lease = lease_message(&l)) ? 0 : err_oom(e);
}

static void leases_create(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Leases__CreateResponse *reply =
        service_message_new(&pb__leases__create_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? create(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static void leases_delete(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Leases__DeleteRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = lease_delete(ctx->db, ns, req->id, &e)) >= 0) {
        if (req->sync)
            r = gc_run(ctx->gc, NULL, &e);
        else
            gc_notify_deletion(ctx->gc);
    }
    service_answer_empty(call, r, &e);
}

static int list(struct grpc_call *call, const Pb__Leases__ListRequest *req,
                Pb__Leases__ListResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(lease_list_done) struct lease_list all = {};
    _cleanup_(filter_freep) struct filter *filter = NULL;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0 ||
        (r = filter_parse((const char *const *)req->filters, req->n_filters, &filter, e)) < 0 ||
        (r = lease_list(ctx->db, ns, filter, &all, e)) < 0)
        return r;
    if (!(reply->leases = calloc(all.n + 1, sizeof(*reply->leases))))
        return err_oom(e);
    for (size_t i = 0; i < all.n; i++, reply->n_leases++)
        if (!(reply->leases[i] = lease_message(&all.leases[i])))
            return err_oom(e);
    return 0;
}

static void leases_list(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Leases__ListResponse *reply = service_message_new(&pb__leases__list_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static void leases_add_resource(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Leases__AddResourceRequest *req = (const void *)request;
    const Pb__Leases__Resource *resource = req->resource;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0)
        r = lease_add_resource(ctx->db, ns, req->id, resource ? resource->type : "",
                               resource ? resource->id : "", &e);
    if (r >= 0)
        gc_notify_mutation(ctx->gc);
    service_answer_empty(call, r, &e);
}

static void leases_delete_resource(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Leases__DeleteResourceRequest *req = (const void *)request;
    const Pb__Leases__Resource *resource = req->resource;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0)
        r = lease_delete_resource(ctx->db, ns, req->id, resource ? resource->type : "",
                                  resource ? resource->id : "", &e);
    if (r >= 0)
        gc_notify_deletion(ctx->gc);
    service_answer_empty(call, r, &e);
}

static int list_resources(struct grpc_call *call, const Pb__Leases__ListResourcesRequest *req,
                          Pb__Leases__ListResourcesResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(lease_resource_list_done) struct lease_resource_list all = {};
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0 ||
        (r = lease_list_resources(ctx->db, ns, req->id, &all, e)) < 0)
        return r;
    if (!(reply->resources = calloc(all.n + 1, sizeof(*reply->resources))))
        return err_oom(e);
    for (size_t i = 0; i < all.n; i++) {
        Pb__Leases__Resource *m = service_message_new(&pb__leases__resource__descriptor);
        if (!m)
            return err_oom(e);
        reply->resources[reply->n_resources++] = m;
        if (!service_set_string(&m->id, all.resources[i].id) ||
            !service_set_string(&m->type, all.resources[i].type))
            return err_oom(e);
    }
    return 0;
}

static void leases_list_resources(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Leases__ListResourcesResponse *reply =
        service_message_new(&pb__leases__list_resources_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list_resources(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

#define REQUEST(name) &pb__leases__##name##_request__descriptor
static const struct grpc_method methods[] = {
    {"AddResource", GRPC_UNARY, GRPC_ON_POOL, REQUEST(add_resource), leases_add_resource},
    {"Create", GRPC_UNARY, GRPC_ON_POOL, REQUEST(create), leases_create},
    {"Delete", GRPC_UNARY, GRPC_ON_POOL, REQUEST(delete), leases_delete},
    {"DeleteResource", GRPC_UNARY, GRPC_ON_POOL, REQUEST(delete_resource), leases_delete_resource},
    {"List", GRPC_UNARY, GRPC_ON_POOL, REQUEST(list), leases_list},
    {"ListResources", GRPC_UNARY, GRPC_ON_POOL, REQUEST(list_resources), leases_list_resources},
};

void leases_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.leases.v1.Leases", methods,
                                     ARRAY_SIZE(methods), ctx};
}

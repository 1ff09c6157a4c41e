/* SPDX-License-Identifier: Apache-2.0 */
#include "store/namespaces.h"

#include "events.pb-c.h"
#include "service/context.h"
#include "services.namespaces.v1.pb-c.h"
#include "store/gc.h"
#include "wire/pb.h"

static Pb__Namespaces__Namespace *namespace_new(const char *name, const struct strmap *labels)
{
    Pb__Namespaces__Namespace *m = service_message_new(&pb__namespaces__namespace__descriptor);

    if (m && service_set_string(&m->name, name) &&
        pb_strmap_new(labels, &pb__namespaces__namespace__labels_entry__descriptor,
                      (void ***)&m->labels, &m->n_labels) == 0)
        return m;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

/* A reply of a single message field, filled with a namespace. The three replies are of one shape.
 */
static int answer_new(const ProtobufCMessageDescriptor *descriptor, const char *name,
                      const struct strmap *labels, ProtobufCMessage **ret, struct err *e)
{
    Pb__Namespaces__GetNamespaceResponse *reply = service_message_new(descriptor);

    if (reply && (reply->namespace_ = namespace_new(name, labels))) {
        *ret = &reply->base;
        return 0;
    }
    pb_free((ProtobufCMessage *)reply);
    return err_oom(e);
}

static void publish_create(struct service_context *ctx, const char *name,
                           const struct strmap *labels)
{
    Pb__Event__NamespaceCreate *event =
        service_message_new(&pb__event__namespace_create__descriptor);

    if (event && (!service_set_string(&event->name, name) ||
                  pb_strmap_new(labels, &pb__event__namespace_create__labels_entry__descriptor,
                                (void ***)&event->labels, &event->n_labels) < 0)) {
        pb_free(&event->base);
        event = NULL;
    }
    service_publish(ctx, name, "/namespaces/create", (ProtobufCMessage *)event);
}

static void publish_update(struct service_context *ctx, const char *name,
                           const struct strmap *labels)
{
    Pb__Event__NamespaceUpdate *event =
        service_message_new(&pb__event__namespace_update__descriptor);

    if (event && (!service_set_string(&event->name, name) ||
                  pb_strmap_new(labels, &pb__event__namespace_update__labels_entry__descriptor,
                                (void ***)&event->labels, &event->n_labels) < 0)) {
        pb_free(&event->base);
        event = NULL;
    }
    service_publish(ctx, name, "/namespaces/update", (ProtobufCMessage *)event);
}

static void namespaces_get(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Namespaces__GetNamespaceRequest *req = (const void *)request;
    _cleanup_(strmap_done) struct strmap labels = {};
    struct err e = ERR_INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    r = namespace_labels(ctx->db, req->name, &labels, &e);
    if (r >= 0)
        r = answer_new(&pb__namespaces__get_namespace_response__descriptor, req->name, &labels,
                       &reply, &e);
    service_answer(call, r, reply, &e);
}

static int list(struct service_context *ctx, Pb__Namespaces__ListNamespacesResponse *reply,
                struct err *e)
{
    _cleanup_(namespace_list_done) struct namespace_list all = {};
    int r = namespace_list(ctx->db, &all, e);

    if (r < 0)
        return r;
    reply->namespaces = calloc(all.n + 1, sizeof(*reply->namespaces));
    if (!reply->namespaces)
        return err_oom(e);
    for (size_t i = 0; i < all.n; i++) {
        _cleanup_(strmap_done) struct strmap labels = {};

        r = namespace_labels(ctx->db, all.names[i], &labels, e);
        if (r < 0)
            return r;
        reply->namespaces[i] = namespace_new(all.names[i], &labels);
        if (!reply->namespaces[i])
            return err_oom(e);
        reply->n_namespaces++;
    }
    return 0;
}

static void namespaces_list(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Namespaces__ListNamespacesResponse *reply =
        service_message_new(&pb__namespaces__list_namespaces_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list(grpc_call_userdata(call), reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int read_given(const Pb__Namespaces__Namespace *given, struct strmap *ret_labels,
                      struct err *e)
{
    if (!given)
        return err_set(e, ERR_INVALID_ARGUMENT, "namespace must be set: invalid argument");
    return pb_strmap_get((void *const *)given->labels, given->n_labels, ret_labels) < 0 ? err_oom(e)
                                                                                        : 0;
}

static void namespaces_create(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Namespaces__CreateNamespaceRequest *req = (const void *)request;
    _cleanup_(strmap_done) struct strmap labels = {};
    struct err e = ERR_INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    r = read_given(req->namespace_, &labels, &e);
    if (r >= 0)
        r = namespace_create(ctx->db, req->namespace_->name, &labels, &e);
    if (r >= 0) {
        publish_create(ctx, req->namespace_->name, &labels);
        r = answer_new(&pb__namespaces__create_namespace_response__descriptor,
                       req->namespace_->name, &labels, &reply, &e);
    }
    service_answer(call, r, reply, &e);
}

static void namespaces_update(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Namespaces__UpdateNamespaceRequest *req = (const void *)request;
    const Google__Protobuf__FieldMask *mask = req->update_mask;
    _cleanup_(strmap_done) struct strmap labels = {}, stored = {};
    struct err e = ERR_INIT;
    ProtobufCMessage *reply = NULL;
    int r;

    r = read_given(req->namespace_, &labels, &e);
    if (r >= 0)
        r = namespace_update(ctx->db, req->namespace_->name, &labels,
                             mask ? (const char *const *)mask->paths : NULL,
                             mask ? mask->n_paths : 0, &stored, &e);
    if (r >= 0) {
        publish_update(ctx, req->namespace_->name, &labels);
        r = answer_new(&pb__namespaces__update_namespace_response__descriptor,
                       req->namespace_->name, &stored, &reply, &e);
    }
    service_answer(call, r, reply, &e);
}

static void namespaces_delete(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Namespaces__DeleteNamespaceRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    int r = namespace_delete(ctx->db, req->name, &e);

    if (r >= 0) {
        Pb__Event__NamespaceDelete *event =
            service_message_new(&pb__event__namespace_delete__descriptor);
        if (event)
            service_set_string(&event->name, req->name);
        service_publish(ctx, req->name, "/namespaces/delete", (ProtobufCMessage *)event);
        /* Ingests and leases went with it. */
        gc_notify_deletion(ctx->gc);
    }
    service_answer_empty(call, r, &e);
}

#define REQUEST(name) &pb__namespaces__##name##_namespace_request__descriptor
static const struct grpc_method methods[] = {
    {"Create", GRPC_UNARY, GRPC_ON_POOL, REQUEST(create), namespaces_create},
    {"Delete", GRPC_UNARY, GRPC_ON_POOL, REQUEST(delete), namespaces_delete},
    {"Get", GRPC_UNARY, GRPC_ON_POOL, REQUEST(get), namespaces_get},
    {"List", GRPC_UNARY, GRPC_ON_POOL, &pb__namespaces__list_namespaces_request__descriptor,
     namespaces_list},
    {"Update", GRPC_UNARY, GRPC_ON_POOL, REQUEST(update), namespaces_update},
};

void namespaces_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.namespaces.v1.Namespaces", methods,
                                     ARRAY_SIZE(methods), ctx};
}

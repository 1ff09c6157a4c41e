/* SPDX-License-Identifier: Apache-2.0 */
#include "store/containers.h"

#include "base/str.h"
#include "events.pb-c.h"
#include "service/context.h"
#include "services.containers.v1.pb-c.h"
#include "store/gc.h"
#include "wire/pb.h"

static bool set_runtime(Pb__Containers__Container *m, const struct container *c)
{
    m->runtime = service_message_new(&pb__containers__container__runtime__descriptor);
    return m->runtime && service_set_string(&m->runtime->name, c->runtime_name) &&
           (any_is_empty(&c->runtime_options) ||
            (m->runtime->options = pb_any_new(&c->runtime_options)));
}

static bool set_extensions(Pb__Containers__Container *m, const struct container *c)
{
    if (!(m->extensions = calloc(c->extensions.n + 1, sizeof(*m->extensions))))
        return false;
    for (size_t i = 0; i < c->extensions.n; i++) {
        const struct anymap_entry *from = &c->extensions.entries[i];
        Pb__Containers__Container__ExtensionsEntry *entry =
            service_message_new(&pb__containers__container__extensions_entry__descriptor);
        if (!entry)
            return false;
        m->extensions[m->n_extensions++] = entry;
        if (!service_set_string(&entry->key, from->key) ||
            (!any_is_empty(&from->value) && !(entry->value = pb_any_new(&from->value))))
            return false;
    }
    return true;
}

static Pb__Containers__Container *container_message(const struct container *c)
{
    Pb__Containers__Container *m = service_message_new(&pb__containers__container__descriptor);

    if (m && service_set_string(&m->id, c->id) &&
        pb_strmap_new(&c->labels, &pb__containers__container__labels_entry__descriptor,
                      (void ***)&m->labels, &m->n_labels) == 0 &&
        service_set_string(&m->image, c->image) && set_runtime(m, c) &&
        (m->spec = pb_any_new(&c->spec)) && service_set_string(&m->snapshotter, c->snapshotter) &&
        service_set_string(&m->snapshot_key, c->snapshot_key) &&
        (m->created_at = pb_timestamp_new(c->created_at)) &&
        (m->updated_at = pb_timestamp_new(c->updated_at)) && set_extensions(m, c) &&
        service_set_string(&m->sandbox, c->sandbox))
        return m;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static int read_extensions(const Pb__Containers__Container *m, struct container *ret)
{
    for (size_t i = 0; i < m->n_extensions; i++) {
        _cleanup_(any_done) struct any value = {};
        if (pb_any_get(m->extensions[i]->value, &value) < 0 ||
            anymap_set(&ret->extensions, m->extensions[i]->key, &value) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* Copies what the client gave; times are not its business. */
static int read_given(const Pb__Containers__Container *m, struct container *ret, struct err *e)
{
    const Pb__Containers__Container__Runtime *runtime = m ? m->runtime : NULL;

    if (!m)
        return err_set(e, ERR_INVALID_ARGUMENT, "container must be set: invalid argument");
    if (!(ret->id = strdup(m->id)) || !(ret->image = strdup(m->image)) ||
        !(ret->snapshotter = strdup(m->snapshotter)) ||
        !(ret->snapshot_key = strdup(m->snapshot_key)) || !(ret->sandbox = strdup(m->sandbox)) ||
        !(ret->runtime_name = strdup(runtime ? runtime->name : "")) ||
        pb_any_get(runtime ? runtime->options : NULL, &ret->runtime_options) < 0 ||
        pb_any_get(m->spec, &ret->spec) < 0 ||
        pb_strmap_get((void *const *)m->labels, m->n_labels, &ret->labels) < 0 ||
        read_extensions(m, ret) < 0)
        return err_oom(e);
    return 0;
}

/* The three replies with one container, and the message of the stream, are of one shape. */
static int answer_new(const ProtobufCMessageDescriptor *descriptor, const struct container *c,
                      ProtobufCMessage **ret, struct err *e)
{
    Pb__Containers__GetContainerResponse *reply = service_message_new(descriptor);

    if (reply && (reply->container = container_message(c))) {
        *ret = &reply->base;
        return 0;
    }
    pb_free((ProtobufCMessage *)reply);
    return err_oom(e);
}

static void containers_get(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Containers__GetContainerRequest *req = (const void *)request;
    _cleanup_(container_done) struct container c = {};
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = container_get(ctx->db, ns, req->id, &c, &e)) >= 0)
        r = answer_new(&pb__containers__get_container_response__descriptor, &c, &reply, &e);
    service_answer(call, r, reply, &e);
}

static int read_all(struct grpc_call *call, const Pb__Containers__ListContainersRequest *req,
                    struct container_list *ret, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(filter_freep) struct filter *filter = NULL;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0 ||
        (r = filter_parse((const char *const *)req->filters, req->n_filters, &filter, e)) < 0)
        return r;
    return container_list(ctx->db, ns, filter, ret, e);
}

static int list(struct grpc_call *call, const Pb__Containers__ListContainersRequest *req,
                Pb__Containers__ListContainersResponse *reply, struct err *e)
{
    _cleanup_(container_list_done) struct container_list all = {};
    int r = read_all(call, req, &all, e);

    if (r < 0)
        return r;
    if (!(reply->containers = calloc(all.n + 1, sizeof(*reply->containers))))
        return err_oom(e);
    for (size_t i = 0; i < all.n; i++, reply->n_containers++)
        if (!(reply->containers[i] = container_message(&all.containers[i])))
            return err_oom(e);
    return 0;
}

static void containers_list(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Containers__ListContainersResponse *reply =
        service_message_new(&pb__containers__list_containers_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

/* What a ListStream call still has to send. */
struct list_stream {
    struct container_list all;
    size_t sent;
};

static void list_stream_release(void *state)
{
    struct list_stream *s = state;

    container_list_done(&s->all);
    free(s);
}

/* Sends until the client is behind or has everything. */
static void list_stream_go_on(struct grpc_call *call, void *state)
{
    struct list_stream *s = state;
    struct err e = ERR_INIT;
    int r = 1;

    while (r > 0 && s->sent < s->all.n) {
        ProtobufCMessage *message = NULL;

        if (answer_new(&pb__containers__list_container_message__descriptor,
                       &s->all.containers[s->sent], &message, &e) < 0) {
            grpc_call_finish(call, &e);
            return;
        }
        r = grpc_call_send(call, message);
        pb_free(message);
        s->sent++;
    }
    if (r < 0) {
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "container %s cannot be sent",
                s->all.containers[s->sent - 1].id);
        grpc_call_finish(call, &e);
    } else if (r > 0) {
        grpc_call_finish(call, NULL);
    }
}

static void containers_list_stream(struct grpc_call *call, const ProtobufCMessage *request)
{
    static const struct grpc_stream_ops ops = {
        .writable = list_stream_go_on,
        .release = list_stream_release,
    };
    struct list_stream *s = calloc(1, sizeof(*s));
    struct err e = ERR_INIT;
    int r = s ? read_all(call, (const void *)request, &s->all, &e) : err_oom(&e);

    if (r < 0) {
        free(s);
        grpc_call_finish(call, &e);
        return;
    }
    grpc_call_set_stream(call, &ops, s);
    list_stream_go_on(call, s);
}

static Pb__Event__ContainerCreate *create_event(const struct container *c)
{
    Pb__Event__ContainerCreate *event =
        service_message_new(&pb__event__container_create__descriptor);

    if (event && service_set_string(&event->id, c->id) &&
        service_set_string(&event->image, c->image) &&
        (event->runtime = service_message_new(&pb__event__container_create__runtime__descriptor)) &&
        service_set_string(&event->runtime->name, c->runtime_name) &&
        (any_is_empty(&c->runtime_options) ||
         (event->runtime->options = pb_any_new(&c->runtime_options))))
        return event;
    pb_free((ProtobufCMessage *)event);
    return NULL;
}

static Pb__Event__ContainerUpdate *update_event(const struct container *c)
{
    Pb__Event__ContainerUpdate *event =
        service_message_new(&pb__event__container_update__descriptor);

    if (event && service_set_string(&event->id, c->id) &&
        service_set_string(&event->image, c->image) &&
        service_set_string(&event->snapshot_key, c->snapshot_key) &&
        pb_strmap_new(&c->labels, &pb__event__container_update__labels_entry__descriptor,
                      (void ***)&event->labels, &event->n_labels) == 0)
        return event;
    pb_free((ProtobufCMessage *)event);
    return NULL;
}

static void containers_create(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Containers__CreateContainerRequest *req = (const void *)request;
    _cleanup_(container_done) struct container given = {}, c = {};
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = read_given(req->container, &given, &e)) >= 0 &&
        (r = container_create(ctx->db, ns, &given, &c, &e)) >= 0) {
        service_publish(ctx, ns, "/containers/create", (ProtobufCMessage *)create_event(&c));
        gc_notify_mutation(ctx->gc);
        r = answer_new(&pb__containers__create_container_response__descriptor, &c, &reply, &e);
    }
    service_answer(call, r, reply, &e);
}

static void containers_update(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Containers__UpdateContainerRequest *req = (const void *)request;
    const Google__Protobuf__FieldMask *mask = req->update_mask;
    _cleanup_(container_done) struct container given = {}, c = {};
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = read_given(req->container, &given, &e)) >= 0)
        r = *given.id ? container_update(ctx->db, ns, &given,
                                         mask ? (const char *const *)mask->paths : NULL,
                                         mask ? mask->n_paths : 0, &c, &e)
                      : err_set(&e, ERR_INVALID_ARGUMENT, "Container.ID required");
    if (r >= 0) {
        service_publish(ctx, ns, "/containers/update", (ProtobufCMessage *)update_event(&c));
        gc_notify_mutation(ctx->gc);
        r = answer_new(&pb__containers__update_container_response__descriptor, &c, &reply, &e);
    }
    service_answer(call, r, reply, &e);
}

static void containers_delete(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Containers__DeleteContainerRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = container_delete(ctx->db, ns, req->id, &e)) >= 0) {
        Pb__Event__ContainerDelete *event =
            service_message_new(&pb__event__container_delete__descriptor);
        if (event)
            service_set_string(&event->id, req->id);
        service_publish(ctx, ns, "/containers/delete", (ProtobufCMessage *)event);
        gc_notify_deletion(ctx->gc);
    }
    service_answer_empty(call, r, &e);
}

#define REQUEST(name) &pb__containers__##name##_request__descriptor
static const struct grpc_method methods[] = {
    {"Create", GRPC_UNARY, GRPC_ON_POOL, REQUEST(create_container), containers_create},
    {"Delete", GRPC_UNARY, GRPC_ON_POOL, REQUEST(delete_container), containers_delete},
    {"Get", GRPC_UNARY, GRPC_ON_POOL, REQUEST(get_container), containers_get},
    {"List", GRPC_UNARY, GRPC_ON_POOL, REQUEST(list_containers), containers_list},
    {"ListStream", GRPC_SERVER_STREAM, GRPC_ON_POOL, REQUEST(list_containers),
     containers_list_stream},
    {"Update", GRPC_UNARY, GRPC_ON_POOL, REQUEST(update_container), containers_update},
};

void containers_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.containers.v1.Containers", methods,
                                     ARRAY_SIZE(methods), ctx};
}

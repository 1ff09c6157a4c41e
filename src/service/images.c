/* SPDX-License-Identifier: Apache-2.0 */
#include "store/images.h"

#include "base/str.h"
#include "service/context.h"
#include "services.images.v1.pb-c.h"
#include "store/gc.h"
#include "wire/pb.h"

static Pb__Types__Descriptor *target_message(const struct image_target *t)
{
    Pb__Types__Descriptor *m = service_message_new(&pb__types__descriptor__descriptor);

    if (m && service_set_string(&m->media_type, t->media_type) &&
        service_set_string(&m->digest, t->digest) &&
        pb_strmap_new(&t->annotations, &pb__types__descriptor__annotations_entry__descriptor,
                      (void ***)&m->annotations, &m->n_annotations) == 0) {
        m->size = t->size;
        return m;
    }
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static Pb__Images__Image *image_message(const struct image *i)
{
    Pb__Images__Image *m = service_message_new(&pb__images__image__descriptor);

    if (m && service_set_string(&m->name, i->name) &&
        pb_strmap_new(&i->labels, &pb__images__image__labels_entry__descriptor,
                      (void ***)&m->labels, &m->n_labels) == 0 &&
        (m->target = target_message(&i->target)) &&
        (m->created_at = pb_timestamp_new(i->created_at)) &&
        (m->updated_at = pb_timestamp_new(i->updated_at)))
        return m;
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

/* Copies what the client gave; times are not its business. */
static int read_given(const Pb__Images__Image *m, struct image *ret, struct err *e)
{
    const Pb__Types__Descriptor *t = m ? m->target : NULL;

    if (!m)
        return err_set(e, ERR_INVALID_ARGUMENT, "image must be set: invalid argument");
    if (!(ret->name = strdup(m->name)) ||
        pb_strmap_get((void *const *)m->labels, m->n_labels, &ret->labels) < 0 ||
        !(ret->target.digest = strdup(t ? t->digest : "")) ||
        !(ret->target.media_type = strdup(t ? t->media_type : "")))
        return err_oom(e);
    if (!t)
        return 0;
    ret->target.size = t->size;
    return pb_strmap_get((void *const *)t->annotations, t->n_annotations,
                         &ret->target.annotations) < 0
               ? err_oom(e)
               : 0;
}

/* The three replies with one image are of one shape. */
static int answer_new(const ProtobufCMessageDescriptor *descriptor, const struct image *i,
                      ProtobufCMessage **ret, struct err *e)
{
    Pb__Images__GetImageResponse *reply = service_message_new(descriptor);

    if (reply && (reply->image = image_message(i))) {
        *ret = &reply->base;
        return 0;
    }
    pb_free((ProtobufCMessage *)reply);
    return err_oom(e);
}

/* Create and update events are of one shape, too, but for the type of their label entries. */
static void publish(struct service_context *ctx, const char *ns, const char *topic,
                    const ProtobufCMessageDescriptor *descriptor,
                    const ProtobufCMessageDescriptor *entry, const struct image *i)
{
    Pb__Images__ImageCreate *event = service_message_new(descriptor);

    if (event &&
        (!service_set_string(&event->name, i->name) ||
         pb_strmap_new(&i->labels, entry, (void ***)&event->labels, &event->n_labels) < 0)) {
        pb_free(&event->base);
        event = NULL;
    }
    service_publish(ctx, ns, topic, (ProtobufCMessage *)event);
}

static void images_get(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Images__GetImageRequest *req = (const void *)request;
    _cleanup_(image_done) struct image i = {};
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = image_get(ctx->db, ns, req->name, &i, &e)) >= 0)
        r = answer_new(&pb__images__get_image_response__descriptor, &i, &reply, &e);
    service_answer(call, r, reply, &e);
}

static int list(struct grpc_call *call, const Pb__Images__ListImagesRequest *req,
                Pb__Images__ListImagesResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(image_list_done) struct image_list all = {};
    _cleanup_(filter_freep) struct filter *filter = NULL;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0 ||
        (r = filter_parse((const char *const *)req->filters, req->n_filters, &filter, e)) < 0 ||
        (r = image_list(ctx->db, ns, filter, &all, e)) < 0)
        return r;
    if (!(reply->images = calloc(all.n + 1, sizeof(*reply->images))))
        return err_oom(e);
    for (size_t i = 0; i < all.n; i++, reply->n_images++)
        if (!(reply->images[i] = image_message(&all.images[i])))
            return err_oom(e);
    return 0;
}

static void images_list(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Images__ListImagesResponse *reply =
        service_message_new(&pb__images__list_images_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static void images_create(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Images__CreateImageRequest *req = (const void *)request;
    _cleanup_(image_done) struct image given = {}, i = {};
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = read_given(req->image, &given, &e)) >= 0)
        r = image_create(ctx->db, ns, service_lease(call), &given,
                         pb_timestamp_get(req->source_date_epoch), &i, &e);
    if (r >= 0) {
        publish(ctx, ns, "/images/create", &pb__images__image_create__descriptor,
                &pb__images__image_create__labels_entry__descriptor, &i);
        gc_notify_mutation(ctx->gc);
        r = answer_new(&pb__images__create_image_response__descriptor, &i, &reply, &e);
    }
    service_answer(call, r, reply, &e);
}

static void images_update(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Images__UpdateImageRequest *req = (const void *)request;
    const Google__Protobuf__FieldMask *mask = req->update_mask;
    _cleanup_(image_done) struct image given = {}, i = {};
    ProtobufCMessage *reply = NULL;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = read_given(req->image, &given, &e)) >= 0)
        r = image_update(ctx->db, ns, service_lease(call), &given,
                         mask ? (const char *const *)mask->paths : NULL, mask ? mask->n_paths : 0,
                         pb_timestamp_get(req->source_date_epoch), &i, &e);
    if (r >= 0) {
        publish(ctx, ns, "/images/update", &pb__images__image_update__descriptor,
                &pb__images__image_update__labels_entry__descriptor, &i);
        /* The target it had may have become garbage. */
        gc_notify_deletion(ctx->gc);
        r = answer_new(&pb__images__update_image_response__descriptor, &i, &reply, &e);
    }
    service_answer(call, r, reply, &e);
}

static void images_delete(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Images__DeleteImageRequest *req = (const void *)request;
    bool has_target =
        req->target_present_case == PB__IMAGES__DELETE_IMAGE_REQUEST__TARGET_PRESENT_TARGET;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0)
        r = image_delete(ctx->db, ns, req->name,
                         has_target && req->target ? req->target->digest : "", &e);
    if (r >= 0) {
        Pb__Images__ImageDelete *event = service_message_new(&pb__images__image_delete__descriptor);
        if (event)
            service_set_string(&event->name, req->name);
        service_publish(ctx, ns, "/images/delete", (ProtobufCMessage *)event);
        if (req->sync)
            r = gc_run(ctx->gc, NULL, &e);
        else
            gc_notify_deletion(ctx->gc);
    }
    service_answer_empty(call, r, &e);
}

#define REQUEST(name) &pb__images__##name##_request__descriptor
static const struct grpc_method methods[] = {
    {"Create", GRPC_UNARY, GRPC_ON_POOL, REQUEST(create_image), images_create},
    {"Delete", GRPC_UNARY, GRPC_ON_POOL, REQUEST(delete_image), images_delete},
    {"Get", GRPC_UNARY, GRPC_ON_POOL, REQUEST(get_image), images_get},
    {"List", GRPC_UNARY, GRPC_ON_POOL, REQUEST(list_images), images_list},
    {"Update", GRPC_UNARY, GRPC_ON_POOL, REQUEST(update_image), images_update},
};

void images_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.images.v1.Images", methods,
                                     ARRAY_SIZE(methods), ctx};
}

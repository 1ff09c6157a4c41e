/* SPDX-License-Identifier: Apache-2.0 */
/* The Content service without Write, which is in content_write.c. */
#include "store/content.h"

#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "service/content_write.h"
#include "service/context.h"
#include "service/listing.h"
#include "services.content.v1.pb-c.h"
#include "store/gc.h"
#include "wire/pb.h"

#define READ_CHUNK (1024 * 1024)
#define STATUSES_MAX 65536

static Pb__Content__Info *info_message(const struct content_info *i)
{
    Pb__Content__Info *m = service_message_new(&pb__content__info__descriptor);

    if (m) {
        m->size = i->size_bytes;
        if (service_set_string(&m->digest, i->digest) &&
            (m->created_at = pb_timestamp_new(i->created_at)) &&
            (m->updated_at = pb_timestamp_new(i->updated_at)) &&
            pb_strmap_new(&i->labels, &pb__content__info__labels_entry__descriptor,
                          (void ***)&m->labels, &m->n_labels) == 0)
            return m;
    }
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static void content_info(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Content__InfoRequest *req = (const void *)request;
    _cleanup_(content_info_done) struct content_info i = {};
    Pb__Content__InfoResponse *reply = service_message_new(&pb__content__info_response__descriptor);
    struct err e = ERR_INIT;
    const char *ns;
    int r = reply ? 0 : err_oom(&e);

    if (r >= 0 && (r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = content_stat(ctx->content, ns, req->digest, &i, &e)) >= 0 &&
        !(reply->info = info_message(&i)))
        r = err_oom(&e);
    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int update(struct grpc_call *call, const Pb__Content__UpdateRequest *req,
                  Pb__Content__UpdateResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(content_info_done) struct content_info i = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    const char *const *paths =
        req->update_mask ? (const char *const *)req->update_mask->paths : NULL;
    size_t n_paths = req->update_mask ? req->update_mask->n_paths : 0;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0)
        return r;
    if (req->info &&
        pb_strmap_get((void *const *)req->info->labels, req->info->n_labels, &labels) < 0)
        return err_oom(e);
    r = content_update(ctx->content, ns, req->info ? req->info->digest : "", &labels, paths,
                       n_paths, &i, e);
    if (r < 0)
        return r;
    gc_notify_mutation(ctx->gc);
    return (reply->info = info_message(&i)) ? 0 : err_oom(e);
}

static void content_update_info(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Content__UpdateResponse *reply =
        service_message_new(&pb__content__update_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? update(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static ProtobufCMessage *delete_event(const char *digest)
{
    Pb__Event__ContentDelete *m = service_message_new(&pb__event__content_delete__descriptor);

    if (m && !service_set_string(&m->digest, digest)) {
        pb_free(&m->base);
        return NULL;
    }
    return (ProtobufCMessage *)m;
}

static void content_delete_digest(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Content__DeleteContentRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0 &&
        (r = content_delete(ctx->content, ns, req->digest, &e)) >= 0) {
        gc_notify_deletion(ctx->gc);
        service_publish(ctx, ns, "/content/delete", delete_event(req->digest));
    }
    service_answer_empty(call, r, &e);
}

static int list_one(const struct content_info *i, void *listing)
{
    return listing_add(listing, i->digest, (ProtobufCMessage *)info_message(i));
}

static int list_walk(struct listing *l, struct err *e)
{
    return content_walk(l->source, l->ns, l->after, l->filter, list_one, l, e);
}

static void content_list(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Content__ListContentRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    const char *ns;

    if (service_namespace(call, &ns, &e) < 0)
        grpc_call_finish(call, &e);
    else
        listing_begin(call, &pb__content__list_content_response__descriptor, ns, req->filters,
                      req->n_filters, ctx->content, list_walk);
}

/* A Read under way. */
struct reading {
    int fd;
    int64_t at, end; /* in the blob */
    int64_t sent;
};

static void reading_release(void *state)
{
    struct reading *d = state;

    close_fd(&d->fd);
    free(d);
}

/* One chunk. 1: go on, 0: wait, or all was sent; negative with the call's end in e. */
static int reading_send(struct reading *d, struct grpc_call *call, uint8_t *chunk, struct err *e)
{
    Pb__Content__ReadContentResponse m = PB__CONTENT__READ_CONTENT_RESPONSE__INIT;
    size_t want = (size_t)MIN_OF(d->end - d->at, (int64_t)READ_CHUNK);
    ssize_t n;
    int r;

    do
        n = neg_errno(pread(d->fd, chunk, want, d->at));
    while (n == -EINTR);
    if (n <= 0)
        return err_errno(e, n < 0 ? (int)n : -EIO, "read content");
    m.offset = d->sent;
    m.data.data = chunk;
    m.data.len = (size_t)n;
    d->at += n;
    d->sent += n;
    r = grpc_call_send(call, &m.base);
    if (r == -ENOBUFS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the client reads too slowly");
    return r < 0 ? err_oom(e) : r;
}

static void reading_continue(struct grpc_call *call, void *state)
{
    struct reading *d = state;
    struct err e = ERR_INIT;
    uint8_t *chunk = malloc((size_t)MIN_OF(d->end - d->at, (int64_t)READ_CHUNK) + 1);
    int r = chunk ? 1 : err_oom(&e);

    while (r > 0 && d->at < d->end)
        r = reading_send(d, call, chunk, &e);
    free(chunk);
    if (r < 0)
        grpc_call_finish(call, &e);
    else if (d->at == d->end)
        grpc_call_finish(call, NULL);
}

static const struct grpc_stream_ops reading_ops = {
    .writable = reading_continue,
    .release = reading_release,
};

static int reading_open(struct reading *d, struct grpc_call *call,
                        const Pb__Content__ReadContentRequest *req, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const char *ns;
    int64_t size;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0 ||
        (r = content_open(ctx->content, ns, req->digest, &d->fd, &size, e)) < 0)
        return r;
    d->at = MAX_OF(req->offset, INT64_C(0));
    if (d->at > size)
        return err_set(e, ERR_OUT_OF_RANGE, "read past object length %lld bytes", (long long)size);
    d->end = req->size > 0 && req->size < size - d->at ? d->at + req->size : size;
    return 0;
}

static void content_read(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct reading *d = calloc(1, sizeof(*d));
    struct err e = ERR_INIT;
    int r = d ? 0 : err_oom(&e);

    if (r >= 0) {
        d->fd = -EBADF;
        grpc_call_set_stream(call, &reading_ops, d);
        r = reading_open(d, call, (const void *)request, &e);
    }
    if (r < 0)
        grpc_call_finish(call, &e);
    else
        reading_continue(call, d);
}

static Pb__Content__Status *status_message(const struct content_status *st)
{
    Pb__Content__Status *m = service_message_new(&pb__content__status__descriptor);

    if (m) {
        m->offset = st->offset;
        m->total = st->total;
        if (service_set_string(&m->ref, st->ref) &&
            service_set_string(&m->expected, st->expected) &&
            (m->started_at = pb_timestamp_new(st->started_at)) &&
            (m->updated_at = pb_timestamp_new(st->updated_at)))
            return m;
    }
    pb_free((ProtobufCMessage *)m);
    return NULL;
}

static void content_get_status(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Content__StatusRequest *req = (const void *)request;
    _cleanup_(content_status_done) struct content_status st = {};
    Pb__Content__StatusResponse *reply =
        service_message_new(&pb__content__status_response__descriptor);
    struct err e = ERR_INIT;
    const char *ns;
    int r = reply ? 0 : err_oom(&e);

    if (r >= 0 && (r = service_namespace(call, &ns, &e)) >= 0) {
        _free_ char *quoted = str_quote(req->ref);
        r = content_status(ctx->content, ns, req->ref, &st, &e);
        if (r < 0)
            err_wrap(&e, "could not get status for ref %s", str_or_empty(quoted));
        else if (!(reply->status = status_message(&st)))
            r = err_oom(&e);
    }
    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static int add_status(const struct content_status *st, void *userdata)
{
    Pb__Content__ListStatusesResponse *reply = userdata;
    size_t n = reply->n_statuses;

    if (n == STATUSES_MAX)
        return -ENOBUFS;
    if ((n & (n - 1)) == 0) { /* a power of two: full */
        void *grown = reallocarray(reply->statuses, n ? 2 * n : 1, sizeof(*reply->statuses));
        if (!grown)
            return -ENOMEM;
        reply->statuses = grown;
    }
    if (!(reply->statuses[n] = status_message(st)))
        return -ENOMEM;
    reply->n_statuses++;
    return 0;
}

static int list_statuses(struct grpc_call *call, const Pb__Content__ListStatusesRequest *req,
                         Pb__Content__ListStatusesResponse *reply, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(filter_freep) struct filter *filter = NULL;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0 ||
        (r = filter_parse((const char *const *)req->filters, req->n_filters, &filter, e)) < 0)
        return r;
    r = content_walk_statuses(ctx->content, ns, filter, add_status, reply, e);
    if (r == -ENOBUFS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d ingests", STATUSES_MAX);
    return r == -ENOMEM ? err_oom(e) : r;
}

static void content_list_statuses(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Content__ListStatusesResponse *reply =
        service_message_new(&pb__content__list_statuses_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? list_statuses(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

static void content_abort_ref(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Content__AbortRequest *req = (const void *)request;
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) >= 0)
        r = content_abort(ctx->content, ns, req->ref, &e);
    service_answer_empty(call, r, &e);
}

static const struct grpc_method methods[] = {
    {"Abort", GRPC_UNARY, GRPC_ON_POOL, &pb__content__abort_request__descriptor, content_abort_ref},
    {"Delete", GRPC_UNARY, GRPC_ON_POOL, &pb__content__delete_content_request__descriptor,
     content_delete_digest},
    {"Info", GRPC_UNARY, GRPC_ON_POOL, &pb__content__info_request__descriptor, content_info},
    {"List", GRPC_SERVER_STREAM, GRPC_ON_POOL, &pb__content__list_content_request__descriptor,
     content_list},
    {"ListStatuses", GRPC_UNARY, GRPC_ON_POOL, &pb__content__list_statuses_request__descriptor,
     content_list_statuses},
    {"Read", GRPC_SERVER_STREAM, GRPC_ON_POOL, &pb__content__read_content_request__descriptor,
     content_read},
    {"Status", GRPC_UNARY, GRPC_ON_POOL, &pb__content__status_request__descriptor,
     content_get_status},
    {"Update", GRPC_UNARY, GRPC_ON_POOL, &pb__content__update_request__descriptor,
     content_update_info},
    {"Write", GRPC_BIDI, GRPC_ON_POOL, &pb__content__write_content_request__descriptor,
     content_write},
};

void content_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){
        .name = "containerd.services.content.v1.Content",
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .userdata = ctx,
    };
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "service/listing.h"

#include "base/str.h"
#include "wire/pb.h"

#define BATCH_MAX 100

/* As protobuf-c lays out a message of one repeated field. */
struct listing_batch {
    ProtobufCMessage base;
    size_t n;
    ProtobufCMessage **infos;
    ProtobufCMessage *places[BATCH_MAX];
};

static void batch_clear(struct listing_batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        pb_free(b->infos[i]);
    b->n = 0;
}

static void listing_release(void *state)
{
    struct listing *l = state;

    if (l->batch)
        batch_clear(l->batch);
    free(l->batch);
    filter_free(l->filter);
    free(l->ns);
    free(l->after);
    free(l);
}

int listing_add(struct listing *l, const char *name, ProtobufCMessage *info)
{
    char *after = strdup(name);

    if (!after || !info) {
        free(after);
        pb_free(info);
        return -ENOMEM;
    }
    l->batch->infos[l->batch->n++] = info;
    free(l->after);
    l->after = after;
    return l->batch->n == BATCH_MAX;
}

static void listing_continue(struct grpc_call *call, void *state)
{
    struct listing *l = state;
    struct err e = ERR_INIT;
    int r, sent = 1;

    do {
        r = l->walk(l, &e);
        if (r >= 0 && l->batch->n > 0)
            sent = grpc_call_send(call, &l->batch->base);
        batch_clear(l->batch);
    } while (r > 0 && sent > 0);
    if (r == -ENOMEM || sent == -ENOMEM)
        r = err_oom(&e);
    else if (r >= 0 && sent < 0)
        r = err_set(&e, ERR_RESOURCE_EXHAUSTED, "the client reads too slowly");
    if (r <= 0)
        grpc_call_finish(call, r < 0 ? &e : NULL);
}

static const struct grpc_stream_ops listing_ops = {
    .writable = listing_continue,
    .release = listing_release,
};

void listing_begin(struct grpc_call *call, const ProtobufCMessageDescriptor *reply, const char *ns,
                   char *const *filters, size_t n_filters, void *source,
                   int (*walk)(struct listing *l, struct err *e))
{
    struct listing *l = calloc(1, sizeof(*l));
    struct err e = ERR_INIT;
    int r = l ? 0 : err_oom(&e);

    if (r >= 0) {
        grpc_call_set_stream(call, &listing_ops, l);
        l->source = source;
        l->walk = walk;
        l->ns = strdup(ns);
        l->batch = calloc(1, sizeof(*l->batch));
        if (!l->ns || !l->batch)
            r = err_oom(&e);
    }
    if (r >= 0)
        r = filter_parse((const char *const *)filters, n_filters, &l->filter, &e);
    if (r < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    l->batch->base.descriptor = reply;
    l->batch->infos = l->batch->places;
    listing_continue(call, l);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events are delivered by the thread that publishes, straight into the queue of each subscriber's
 * call. The queue is bounded: who does not read loses the stream, told so, instead of filling the
 * daemon's memory.
 */
#include "base/filter.h"
#include "google/protobuf/empty.pb-c.h"
#include "runtime/exchange.h"
#include "service/context.h"
#include "services.events.v1.pb-c.h"
#include "wire/pb.h"

#define QUEUE_MAX_BYTES (4u << 20) /* of one subscriber, some 20,000 events */

static void events_publish(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Events__PublishRequest *req = (const void *)request;
    _cleanup_(any_done) struct any event = {};
    struct err e = ERR_INIT;
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, &e)) < 0)
        err_wrap(&e, "failed publishing event");
    else if (pb_any_get(req->event, &event) < 0)
        r = err_oom(&e);
    else
        r = exchange_publish_any(ctx->exchange, ns, req->topic, &event, &e);
    service_answer_empty(call, r, &e);
}

static void events_forward(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Events__ForwardRequest *req = (const void *)request;
    struct err e = ERR_INIT;

    service_answer_empty(call, exchange_forward(ctx->exchange, req->envelope, &e), &e);
}

/* Runs on the publishing thread. Once finished, a call drops what is sent to it, until it is
 * released here. */
static void forward_to_subscriber(void *userdata, const Pb__Types__Envelope *envelope)
{
    struct grpc_call *call = userdata;
    struct err e = ERR_INIT;

    if (grpc_call_queued_bytes(call) <= QUEUE_MAX_BYTES &&
        grpc_call_send(call, &envelope->base) >= 0)
        return;
    err_set(&e, ERR_RESOURCE_EXHAUSTED,
            "too many events wait to be read by this subscriber: subscribe again");
    grpc_call_finish(call, &e);
}

static void subscription_release(void *state)
{
    exchange_unsubscribe(state);
}

static void events_subscribe(struct grpc_call *call, const ProtobufCMessage *request)
{
    static const struct grpc_stream_ops ops = {.release = subscription_release};
    struct service_context *ctx = grpc_call_userdata(call);
    const Pb__Events__SubscribeRequest *req = (const void *)request;
    struct filter *filter = NULL;
    struct subscription *subscription;
    struct err e = ERR_INIT;

    if (filter_parse((const char *const *)req->filters, req->n_filters, &filter, &e) < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    /* The call outlives the subscription, which its release ends. */
    if (exchange_subscribe(ctx->exchange, filter, forward_to_subscriber, call, &subscription) < 0) {
        filter_free(filter);
        err_oom(&e);
        grpc_call_finish(call, &e);
        return;
    }
    grpc_call_set_stream(call, &ops, subscription);
}

static const struct grpc_method methods[] = {
    {"Forward", GRPC_UNARY, GRPC_ON_LOOP, &pb__events__forward_request__descriptor, events_forward},
    {"Publish", GRPC_UNARY, GRPC_ON_LOOP, &pb__events__publish_request__descriptor, events_publish},
    {"Subscribe", GRPC_SERVER_STREAM, GRPC_ON_LOOP, &pb__events__subscribe_request__descriptor,
     events_subscribe},
};

void events_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.events.v1.Events", methods,
                                     ARRAY_SIZE(methods), ctx};
}

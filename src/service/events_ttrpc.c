/* SPDX-License-Identifier: Apache-2.0 */
#include "service/events_ttrpc.h"

#include "google/protobuf/empty.pb-c.h"
#include "runtime/exchange.h"
#include "service/context.h"
#include "services.events.ttrpc.v1.pb-c.h"

static void events_ttrpc_forward(struct ttrpc_call *call, const ProtobufCMessage *request)
{
    static const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
    const Pb__Eventsttrpc__ForwardRequest *req = (const void *)request;
    struct service_context *ctx = ttrpc_call_userdata(call);
    struct err e = ERR_INIT;

    if (exchange_forward(ctx->exchange, req->envelope, &e) < 0)
        ttrpc_call_fail(call, &e);
    else
        ttrpc_call_reply(call, &empty.base);
}

static const struct ttrpc_method methods[] = {
    {"Forward", &pb__eventsttrpc__forward_request__descriptor, events_ttrpc_forward},
};

const struct ttrpc_service events_ttrpc_service = {"containerd.services.events.ttrpc.v1.Events",
                                                   methods, ARRAY_SIZE(methods)};

/* SPDX-License-Identifier: Apache-2.0 */
#include "service/context.h"

#include "base/identifier.h"
#include "base/log.h"
#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "runtime/exchange.h"
#include "wire/pb.h"

int service_namespace(const struct grpc_call *call, const char **ret, struct err *e)
{
    const char *ns = grpc_call_header(call, "containerd-namespace");

    if (str_empty(ns))
        return err_set(e, ERR_FAILED_PRECONDITION, "namespace is required: failed precondition");
    if (identifier_validate(ns, e) < 0)
        return err_wrap(e, "namespace validation");
    *ret = ns;
    return 0;
}

const char *service_lease(const struct grpc_call *call)
{
    return str_or_empty(grpc_call_header(call, "containerd-lease"));
}

void service_answer(struct grpc_call *call, int r, ProtobufCMessage *reply, const struct err *e)
{
    if (r < 0)
        grpc_call_finish(call, e);
    else
        grpc_call_reply(call, reply);
    pb_free(reply);
}

void service_answer_empty(struct grpc_call *call, int r, const struct err *e)
{
    static const Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    if (r < 0)
        grpc_call_finish(call, e);
    else
        grpc_call_reply(call, &empty.base);
}

void *service_message_new(const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *m = malloc(descriptor->sizeof_message);

    if (m)
        protobuf_c_message_init(descriptor, m);
    return m;
}

bool service_set_string(char **field, const char *value)
{
    *field = strdup(str_or_empty(value));
    return *field;
}

void service_publish(struct service_context *ctx, const char *ns, const char *topic,
                     ProtobufCMessage *event)
{
    struct err e = ERR_INIT;

    if (!event)
        log_warn("event %s of namespace %s is lost: out of memory", topic, ns);
    else if (exchange_publish(ctx->exchange, ns, topic, event, &e) < 0)
        log_warn("publish %s in namespace %s: %s", topic, ns, e.msg);
    pb_free(event);
}

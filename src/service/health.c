/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon as a whole (service "") serves from its first answer to its last; there is no other
 * service. */
#include "grpc.health.v1.pb-c.h"
#include "service/context.h"

static void health_check(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Health__HealthCheckRequest *req = (const void *)request;
    Pb__Health__HealthCheckResponse reply = PB__HEALTH__HEALTH_CHECK_RESPONSE__INIT;
    struct err e = ERR_INIT;

    if (*req->service) {
        err_set(&e, ERR_NOT_FOUND, "unknown service");
        grpc_call_finish(call, &e);
        return;
    }
    reply.status = PB__HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    grpc_call_reply(call, &reply.base);
}

/* The status now and, as it never changes, nothing more until the client leaves. */
static void health_watch(struct grpc_call *call, const ProtobufCMessage *request)
{
    static const struct grpc_stream_ops parked = {};
    const Pb__Health__HealthCheckRequest *req = (const void *)request;
    Pb__Health__HealthCheckResponse message = PB__HEALTH__HEALTH_CHECK_RESPONSE__INIT;

    grpc_call_set_stream(call, &parked, NULL);
    message.status = *req->service
                         ? PB__HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN
                         : PB__HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    grpc_call_send(call, &message.base);
}

static const struct grpc_method methods[] = {
    {"Check", GRPC_UNARY, GRPC_ON_LOOP, &pb__health__health_check_request__descriptor,
     health_check},
    {"Watch", GRPC_SERVER_STREAM, GRPC_ON_LOOP, &pb__health__health_check_request__descriptor,
     health_watch},
};

void health_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"grpc.health.v1.Health", methods, ARRAY_SIZE(methods), ctx};
}

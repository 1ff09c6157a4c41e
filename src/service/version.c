/* SPDX-License-Identifier: Apache-2.0 */
#include "google/protobuf/empty.pb-c.h"
#include "service/context.h"
#include "services.version.v1.pb-c.h"

static void version_version(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct service_context *ctx = grpc_call_userdata(call);
    Pb__Version__VersionResponse reply = PB__VERSION__VERSION_RESPONSE__INIT;

    reply.version = (char *)ctx->version;
    reply.revision = (char *)ctx->revision;
    grpc_call_reply(call, &reply.base);
}

static const struct grpc_method methods[] = {
    {"Version", GRPC_UNARY, GRPC_ON_LOOP, &google__protobuf__empty__descriptor, version_version},
};

void version_service_init(struct grpc_service *service, struct service_context *ctx)
{
    *service = (struct grpc_service){"containerd.services.version.v1.Version", methods,
                                     ARRAY_SIZE(methods), ctx};
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/publish.h"

#include "base/buf.h"
#include "base/event.h"
#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "services.events.v1.pb-c.h"
#include "wire/grpc_client.h"
#include "wire/pb.h"

#define CONNECT_TIMEOUT_MS 2000
#define CALL_TIMEOUT_MS 10000
#define EVENT_MAX (4u << 20)

static int read_event(ProtobufCMessage **ret, struct err *e)
{
    _cleanup_(buf_done) struct buf input = BUF_INIT(EVENT_MAX);

    for (;;) {
        uint8_t *room = NULL;
        if (buf_reserve(&input, 4096, &room) < 0)
            return err_set(e, ERR_RESOURCE_EXHAUSTED, "event is longer than %u bytes", EVENT_MAX);
        ssize_t n = read(STDIN_FILENO, room, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, -errno, "read event from standard input");
        if (n == 0)
            break;
        buf_commit(&input, (size_t)n);
    }
    int r = pb_unpack(&google__protobuf__any__descriptor, buf_head(&input), input.len, ret, e);
    return r < 0 ? err_wrap(e, "decode event from standard input") : 0;
}

static int publish(struct event_loop *loop, const char *address, const char *topic,
                   const char *namespace_, ProtobufCMessage *event, struct err *e)
{
    Pb__Events__PublishRequest request = PB__EVENTS__PUBLISH_REQUEST__INIT;
    struct grpc_client *client = NULL;
    ProtobufCMessage *reply = NULL;

    int r = grpc_client_new(loop, address, CONNECT_TIMEOUT_MS, &client, e);
    if (r < 0)
        return r;
    request.topic = (char *)topic;
    request.event = (Google__Protobuf__Any *)event;
    r = grpc_client_set_header(client, "containerd-namespace", namespace_);
    if (r >= 0)
        r = grpc_client_call_sync(client, "/containerd.services.events.v1.Events/Publish",
                                  &request.base, &google__protobuf__empty__descriptor,
                                  CALL_TIMEOUT_MS, &reply, e);
    else
        err_oom(e);
    pb_free(reply);
    grpc_client_free(client);
    return r;
}

int publish_run(const char *address, const char *topic, const char *namespace_, struct err *e)
{
    ProtobufCMessage *event = NULL;
    struct event_loop loop;

    if (str_empty(topic) || str_empty(namespace_))
        return err_set(e, ERR_INVALID_ARGUMENT, "publish wants --topic and --namespace");
    int r = read_event(&event, e);
    if (r < 0)
        return r;
    r = event_loop_init(&loop);
    if (r < 0) {
        pb_free(event);
        return err_errno(e, r, "make event loop");
    }
    r = publish(&loop, address, topic, namespace_, event, e);
    event_loop_done(&loop);
    pb_free(event);
    return r;
}

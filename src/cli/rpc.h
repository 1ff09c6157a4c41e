/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to the daemon as straight-line code: several can be started, then each is waited for.
 * Connecting happens with the first one.
 *
 *     _cleanup_(rpc_done) struct rpc image = RPC_INIT;
 *     r = rpc_start(cli, &image, "images.v1.Images/Get", &request.base, &reply_descriptor, e);
 *     ...
 *     r = rpc_wait(cli, &image, e);          reply: image.reply
 *
 * or in one step RPC(cli, "images.v1.Images/Get", &request, pb__images__get_image_response, &reply,
 * e).
 */
#pragma once

#include "cli/cli.h"
#include "wire/pb.h"

struct rpc {
    struct grpc_client_call *call; /* NULL once answered */
    ProtobufCMessage *reply;       /* the last message */
    bool done;
    struct err err; /* code ERR_OK when it succeeded */
    /* For streams: gets (and owns) each message instead of `reply`. */
    void (*message)(void *userdata, ProtobufCMessage *m);
    void *userdata;
};
#define RPC_INIT \
    {            \
    }

/* Cancels the call if it is still under way. The struct must not move while it is. */
void rpc_done(struct rpc *rpc);
/* method: without "/containerd.services." in front. */
int rpc_start(struct cli *cli, struct rpc *rpc, const char *method, const ProtobufCMessage *request,
              const ProtobufCMessageDescriptor *reply, struct err *e);
/* Turns the loop until it is answered, or the user interrupts (ERR_CANCELED "interrupted"). */
int rpc_wait(struct cli *cli, struct rpc *rpc, struct err *e);
/* ret may be NULL. The reply is the caller's (pb_free()). */
int rpc_call(struct cli *cli, const char *method, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *reply, ProtobufCMessage **ret, struct err *e);

static inline void rpc_free_reply(ProtobufCMessage **m)
{
    pb_free(*m);
}
/* For `_reply_ Pb__X *x = NULL;` */
#define _reply_ _cleanup_(rpc_free_any)
static inline void rpc_free_any(void *p)
{
    pb_free(*(ProtobufCMessage **)p);
}

/* request: a message struct by address; type: the C prefix of the reply's descriptor. */
#define RPC(cli, method, request, type, ret, e) \
    rpc_call(cli, method, &(request)->base, &type##__descriptor, (ProtobufCMessage **)(ret), e)
/* Replies that carry nothing. */
#define RPC_EMPTY(cli, method, request, e) \
    rpc_call(cli, method, &(request)->base, &google__protobuf__empty__descriptor, NULL, e)

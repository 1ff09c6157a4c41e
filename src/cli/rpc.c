/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/rpc.h"

#include <stdio.h>

static void on_message(struct grpc_client_call *call, void *userdata, ProtobufCMessage *message)
{
    struct rpc *rpc = userdata;

    if (rpc->message) {
        rpc->message(rpc->userdata, message);
        return;
    }
    pb_free(rpc->reply);
    rpc->reply = message;
}

static void on_end(struct grpc_client_call *call, void *userdata, const struct err *e)
{
    struct rpc *rpc = userdata;

    rpc->call = NULL;
    rpc->done = true;
    if (e)
        rpc->err = *e;
}

void rpc_done(struct rpc *rpc)
{
    if (rpc->call)
        grpc_client_call_cancel(rpc->call);
    pb_free(rpc->reply);
    *rpc = (struct rpc)RPC_INIT;
}

int rpc_start(struct cli *cli, struct rpc *rpc, const char *method, const ProtobufCMessage *request,
              const ProtobufCMessageDescriptor *reply, struct err *e)
{
    char path[128];
    int r = cli_connect(cli, e);

    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "/containerd.services.%s", method);
    rpc->done = false;
    return grpc_client_start(cli->client, path, request, reply, 0, on_message, on_end, rpc,
                             &rpc->call, e);
}

int rpc_wait(struct cli *cli, struct rpc *rpc, struct err *e)
{
    while (!rpc->done) {
        int r = event_loop_turn(&cli->loop, -1);

        if (r < 0)
            return err_errno(e, r, "wait for the daemon");
        if (cli_gives_up(cli) && !rpc->done)
            return err_set(e, ERR_CANCELED, "interrupted");
    }
    if (rpc->err.code == ERR_OK)
        return 0;
    if (e)
        *e = rpc->err;
    return ERR_RETURN;
}

int rpc_call(struct cli *cli, const char *method, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *reply, ProtobufCMessage **ret, struct err *e)
{
    _cleanup_(rpc_done) struct rpc rpc = RPC_INIT;
    int r = rpc_start(cli, &rpc, method, request, reply, e);

    if (r == 0)
        r = rpc_wait(cli, &rpc, e);
    if (r < 0)
        return r;
    if (!rpc.reply)
        return err_set(e, ERR_INTERNAL, "the daemon answered %s without a message", method);
    if (ret)
        *ret = TAKE(rpc.reply);
    return 0;
}

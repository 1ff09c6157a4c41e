/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Task calls that only pass through: the request goes to the shim, its answer to the client, by a
 * table. They run on the loop and hold no thread, so that a shim that hangs holds up nobody but its
 * callers.
 */
#pragma once

#include "runtime/tasks.h"
#include "service/context.h"

struct forward;

#define FORWARD_STATE_TIMEOUT UINT64_MAX /* service_context.state_timeout_ms */

struct forward_route {
    const char *method; /* of the shim's task service */
    const ProtobufCMessageDescriptor *reply;
    uint64_t timeout_ms; /* 0: as long as the client waits, or FORWARD_STATE_TIMEOUT */
    /* Fills forward->shim from forward->request. */
    void (*build)(struct forward *f);
    /* The client's answer out of the shim's (whose parts it may move); NULL: out of memory. */
    ProtobufCMessage *(*convert)(struct forward *f, ProtobufCMessage *reply);
    /* NULL, or what an error becomes: true when *ret is an answer in its place. */
    bool (*recover)(struct forward *f, const struct err *e, ProtobufCMessage **ret);
};

struct forward {
    struct grpc_call *call;
    struct task *task;
    const struct forward_route *route;
    const ProtobufCMessage *request;
    union {
        ProtobufCMessage base;
        Pb__Task__CloseIORequest close_io;
        Pb__Task__DeleteRequest remove;
        Pb__Task__ExecProcessRequest exec;
        Pb__Task__KillRequest kill;
        Pb__Task__PauseRequest pause;
        Pb__Task__PidsRequest pids;
        Pb__Task__ResizePtyRequest resize;
        Pb__Task__ResumeRequest resume;
        Pb__Task__StartRequest start;
        Pb__Task__StateRequest state;
        Pb__Task__UpdateTaskRequest update;
        Pb__Task__WaitRequest wait;
    } shim;
    struct workq_job job;
};

/* The request's first field is the container id, as in every message of the tasks service. */
void tasks_forward(struct grpc_call *call, const ProtobufCMessage *request,
                   const struct forward_route *route);

/* NOT_FOUND in containerd's words: there is no such container, or it has no task. Blocks on the
 * database. */
int task_missing(struct service_context *ctx, const char *ns, const char *id, struct err *e);

/* Moves a string out of a message that is about to be freed. */
#define PB_MOVE_STR(from)                         \
    ({                                            \
        char *moved_ = (from);                    \
        (from) = (char *)protobuf_c_empty_string; \
        moved_;                                   \
    })

/* A process as clients see it, out of a shim's state; NULL: out of memory. */
Pb__V1types__Process *process_from_state(Pb__Task__StateResponse *state);

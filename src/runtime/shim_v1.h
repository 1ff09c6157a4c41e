/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of runtime v1 shims (containerd.runtime.linux.shim.v1.Shim), for callers that speak
 * that of v2. One shim has one container, so its requests name a process by one id: the exec id, or
 * the container's for init; what acts on the container as a whole has an empty request.
 *
 * The answers have the same numbers as those of v2, except that of Start: only it is converted, the
 * others are decoded as what the caller wants.
 */
#pragma once

#include "base/attr.h"
#include "google/protobuf/empty.pb-c.h"
#include "runtime.linux.shim.v1.pb-c.h"

#define SHIM_V1_SERVICE "containerd.runtime.linux.shim.v1.Shim"

struct shim_v1_call {
    const char *method;
    const ProtobufCMessage *request; /* into `message`, whose strings are those of the v2 request */
    const ProtobufCMessageDescriptor *reply;
    union {
        Google__Protobuf__Empty empty;
        Pb__Shimv1__CheckpointTaskRequest checkpoint;
        Pb__Shimv1__CloseIORequest close_io;
        Pb__Shimv1__DeleteProcessRequest delete_process;
        Pb__Shimv1__ExecProcessRequest exec;
        Pb__Shimv1__KillRequest kill;
        Pb__Shimv1__ListPidsRequest pids;
        Pb__Shimv1__ResizePtyRequest resize;
        Pb__Shimv1__StartRequest start;
        Pb__Shimv1__StateRequest state;
        Pb__Shimv1__UpdateTaskRequest update;
        Pb__Shimv1__WaitRequest wait;
    } message;
};

/* A request of v2, or one that is of v1 already and passes as it is (Create, whose OCI runtime v2
 * has no field for). False: v1 has no such method (Stats, Shutdown). */
bool shim_v1_translate(const char *method, const ProtobufCMessage *request,
                       const ProtobufCMessageDescriptor *reply, struct shim_v1_call *ret);
/* Takes the answer, gives it in the language of v2; NULL: out of memory, the answer is freed. */
ProtobufCMessage *shim_v1_reply(ProtobufCMessage *reply);

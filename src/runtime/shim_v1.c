/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_v1.h"

#include "base/str.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"

/* The one id of v1. */
static char *process_id(char *id, char *exec_id)
{
    return str_empty(exec_id) ? id : exec_id;
}

static void build_empty(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    google__protobuf__empty__init(&c->message.empty);
}

static void build_checkpoint(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__CheckpointTaskRequest *r = (const Pb__Task__CheckpointTaskRequest *)request;

    pb__shimv1__checkpoint_task_request__init(&c->message.checkpoint);
    c->message.checkpoint.path = r->path;
    c->message.checkpoint.options = r->options;
}

static void build_close_io(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__CloseIORequest *r = (const Pb__Task__CloseIORequest *)request;

    pb__shimv1__close_iorequest__init(&c->message.close_io);
    c->message.close_io.id = process_id(r->id, r->exec_id);
    c->message.close_io.stdin = r->stdin;
}

/* The container's end and that of a process of it are two methods. */
static void build_delete(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__DeleteRequest *r = (const Pb__Task__DeleteRequest *)request;

    if (str_empty(r->exec_id)) {
        build_empty(request, c);
        return;
    }
    c->method = "DeleteProcess";
    pb__shimv1__delete_process_request__init(&c->message.delete_process);
    c->message.delete_process.id = r->exec_id;
}

static void build_exec(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__ExecProcessRequest *r = (const Pb__Task__ExecProcessRequest *)request;

    pb__shimv1__exec_process_request__init(&c->message.exec);
    c->message.exec.id = r->exec_id;
    c->message.exec.terminal = r->terminal;
    c->message.exec.stdin = r->stdin;
    c->message.exec.stdout = r->stdout;
    c->message.exec.stderr = r->stderr;
    c->message.exec.spec = r->spec;
}

static void build_kill(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__KillRequest *r = (const Pb__Task__KillRequest *)request;

    pb__shimv1__kill_request__init(&c->message.kill);
    c->message.kill.id = process_id(r->id, r->exec_id);
    c->message.kill.signal = r->signal;
    c->message.kill.all = r->all;
}

static void build_pids(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    pb__shimv1__list_pids_request__init(&c->message.pids);
    c->message.pids.id = ((const Pb__Task__PidsRequest *)request)->id;
}

static void build_resize(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__ResizePtyRequest *r = (const Pb__Task__ResizePtyRequest *)request;

    pb__shimv1__resize_pty_request__init(&c->message.resize);
    c->message.resize.id = process_id(r->id, r->exec_id);
    c->message.resize.width = r->width;
    c->message.resize.height = r->height;
}

static void build_start(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__StartRequest *r = (const Pb__Task__StartRequest *)request;

    pb__shimv1__start_request__init(&c->message.start);
    c->message.start.id = process_id(r->id, r->exec_id);
    c->reply = &pb__shimv1__start_response__descriptor;
}

static void build_state(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__StateRequest *r = (const Pb__Task__StateRequest *)request;

    pb__shimv1__state_request__init(&c->message.state);
    c->message.state.id = process_id(r->id, r->exec_id);
}

static void build_update(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    pb__shimv1__update_task_request__init(&c->message.update);
    c->message.update.resources = ((const Pb__Task__UpdateTaskRequest *)request)->resources;
}

static void build_wait(const ProtobufCMessage *request, struct shim_v1_call *c)
{
    const Pb__Task__WaitRequest *r = (const Pb__Task__WaitRequest *)request;

    pb__shimv1__wait_request__init(&c->message.wait);
    c->message.wait.id = process_id(r->id, r->exec_id);
}

static const struct {
    const char *v2, *v1;
    void (*build)(const ProtobufCMessage *request, struct shim_v1_call *c);
} methods[] = {
    {"State", "State", build_state},
    {"Start", "Start", build_start},
    {"Delete", "Delete", build_delete},
    {"Pids", "ListPids", build_pids},
    {"Pause", "Pause", build_empty},
    {"Resume", "Resume", build_empty},
    {"Checkpoint", "Checkpoint", build_checkpoint},
    {"Kill", "Kill", build_kill},
    {"Exec", "Exec", build_exec},
    {"ResizePty", "ResizePty", build_resize},
    {"CloseIO", "CloseIO", build_close_io},
    {"Update", "Update", build_update},
    {"Wait", "Wait", build_wait},
    /* Tells the shim's pid; that of the container is left to State. */
    {"Connect", "ShimInfo", build_empty},
};

bool shim_v1_translate(const char *method, const ProtobufCMessage *request,
                       const ProtobufCMessageDescriptor *reply, struct shim_v1_call *ret)
{
    *ret = (struct shim_v1_call){.method = method, .request = request, .reply = reply};
    if (str_eq(request->descriptor->package_name, "containerd.runtime.linux.shim.v1"))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
        if (!str_eq(methods[i].v2, method))
            continue;
        ret->method = methods[i].v1;
        ret->request = &ret->message.empty.base;
        methods[i].build(request, ret);
        return true;
    }
    return false;
}

ProtobufCMessage *shim_v1_reply(ProtobufCMessage *reply)
{
    if (reply->descriptor != &pb__shimv1__start_response__descriptor)
        return reply;
    Pb__Task__StartResponse *answer = malloc(sizeof(*answer));
    if (answer) {
        pb__task__start_response__init(answer);
        answer->pid = ((Pb__Shimv1__StartResponse *)reply)->pid;
    }
    pb_free(reply);
    return answer ? &answer->base : NULL;
}

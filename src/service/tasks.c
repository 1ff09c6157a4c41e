/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd.services.tasks.v1.Tasks. Create and Delete are straight-line code on the pool,
 * Checkpoint is half of it (tasks_checkpoint.h); everything else passes through to the shim on the
 * loop (tasks_forward.h).
 */
#include "runtime/tasks.h"

#include "base/identifier.h"
#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "service/context.h"
#include "service/tasks_checkpoint.h"
#include "service/tasks_forward.h"
#include "service/tasks_list.h"
#include "services.tasks.v1.pb-c.h"
#include "store/containers.h"
#include "wire/pb.h"

#define SHORT_TIMEOUT_MS 10000   /* what the shim does by itself */
#define RUNTIME_TIMEOUT_MS 60000 /* what it asks the OCI runtime for */

/* Requests and answers, one pair a method. */

static ProtobufCMessage *convert_empty(struct forward *f, ProtobufCMessage *reply)
{
    Google__Protobuf__Empty *empty = malloc(sizeof(*empty));
    if (!empty)
        return NULL;
    google__protobuf__empty__init(empty);
    return &empty->base;
}

static void build_start(struct forward *f)
{
    const Pb__Tasks__StartRequest *r = (const Pb__Tasks__StartRequest *)f->request;

    pb__task__start_request__init(&f->shim.start);
    f->shim.start.id = r->container_id;
    f->shim.start.exec_id = r->exec_id;
}

static ProtobufCMessage *convert_start(struct forward *f, ProtobufCMessage *reply)
{
    Pb__Tasks__StartResponse *answer = malloc(sizeof(*answer));
    if (!answer)
        return NULL;
    pb__tasks__start_response__init(answer);
    answer->pid = ((Pb__Task__StartResponse *)reply)->pid;
    return &answer->base;
}

static void build_get(struct forward *f)
{
    const Pb__Tasks__GetRequest *r = (const Pb__Tasks__GetRequest *)f->request;

    pb__task__state_request__init(&f->shim.state);
    f->shim.state.id = r->container_id;
    f->shim.state.exec_id = r->exec_id;
}

static ProtobufCMessage *get_answer(Pb__V1types__Process *process)
{
    Pb__Tasks__GetResponse *answer = process ? malloc(sizeof(*answer)) : NULL;
    if (!answer) {
        if (process)
            pb_free(&process->base);
        return NULL;
    }
    pb__tasks__get_response__init(answer);
    answer->process = process;
    return &answer->base;
}

static ProtobufCMessage *convert_get(struct forward *f, ProtobufCMessage *reply)
{
    return get_answer(process_from_state((Pb__Task__StateResponse *)reply));
}

/* A shim that does not answer leaves the status unknown; the task is there all the same, and with
 * the pid that it had: clients take a task without one for ended, and do not kill it. */
static bool recover_get(struct forward *f, const struct err *e, ProtobufCMessage **ret)
{
    const Pb__Tasks__GetRequest *r = (const Pb__Tasks__GetRequest *)f->request;

    if (e->code == ERR_NOT_FOUND || !str_empty(r->exec_id))
        return false;
    Pb__V1types__Process *process = malloc(sizeof(*process));
    if (!process)
        return false;
    pb__v1types__process__init(process);
    char *id = strdup(r->container_id);
    if (id)
        process->id = id;
    process->pid = (uint32_t)bundle_read_pid(&f->task->bundle, "init.pid");
    *ret = get_answer(process);
    return *ret != NULL;
}

static void build_kill(struct forward *f)
{
    const Pb__Tasks__KillRequest *r = (const Pb__Tasks__KillRequest *)f->request;

    pb__task__kill_request__init(&f->shim.kill);
    f->shim.kill.id = r->container_id;
    f->shim.kill.exec_id = r->exec_id;
    f->shim.kill.signal = r->signal;
    f->shim.kill.all = r->all && str_empty(r->exec_id);
}

static void build_exec(struct forward *f)
{
    const Pb__Tasks__ExecProcessRequest *r = (const Pb__Tasks__ExecProcessRequest *)f->request;

    pb__task__exec_process_request__init(&f->shim.exec);
    f->shim.exec.id = r->container_id;
    f->shim.exec.exec_id = r->exec_id;
    f->shim.exec.terminal = r->terminal;
    f->shim.exec.stdin = r->stdin;
    f->shim.exec.stdout = r->stdout;
    f->shim.exec.stderr = r->stderr;
    f->shim.exec.spec = r->spec;
}

static void build_resize(struct forward *f)
{
    const Pb__Tasks__ResizePtyRequest *r = (const Pb__Tasks__ResizePtyRequest *)f->request;

    pb__task__resize_pty_request__init(&f->shim.resize);
    f->shim.resize.id = r->container_id;
    f->shim.resize.exec_id = r->exec_id;
    f->shim.resize.width = r->width;
    f->shim.resize.height = r->height;
}

static void build_close_io(struct forward *f)
{
    const Pb__Tasks__CloseIORequest *r = (const Pb__Tasks__CloseIORequest *)f->request;

    pb__task__close_iorequest__init(&f->shim.close_io);
    f->shim.close_io.id = r->container_id;
    f->shim.close_io.exec_id = r->exec_id;
    f->shim.close_io.stdin = true;
}

static void build_pause(struct forward *f)
{
    pb__task__pause_request__init(&f->shim.pause);
    f->shim.pause.id = ((const Pb__Tasks__PauseTaskRequest *)f->request)->container_id;
}

static void build_resume(struct forward *f)
{
    pb__task__resume_request__init(&f->shim.resume);
    f->shim.resume.id = ((const Pb__Tasks__ResumeTaskRequest *)f->request)->container_id;
}

static void build_pids(struct forward *f)
{
    pb__task__pids_request__init(&f->shim.pids);
    f->shim.pids.id = ((const Pb__Tasks__ListPidsRequest *)f->request)->container_id;
}

static ProtobufCMessage *convert_pids(struct forward *f, ProtobufCMessage *reply)
{
    Pb__Task__PidsResponse *pids = (Pb__Task__PidsResponse *)reply;
    Pb__Tasks__ListPidsResponse *answer = malloc(sizeof(*answer));
    if (!answer)
        return NULL;
    pb__tasks__list_pids_response__init(answer);
    answer->n_processes = pids->n_processes;
    answer->processes = TAKE(pids->processes);
    pids->n_processes = 0;
    return &answer->base;
}

static void build_update(struct forward *f)
{
    const Pb__Tasks__UpdateTaskRequest *r = (const Pb__Tasks__UpdateTaskRequest *)f->request;

    pb__task__update_task_request__init(&f->shim.update);
    f->shim.update.id = r->container_id;
    f->shim.update.resources = r->resources;
    /* Both messages have a type of their own for the entries of the map, of one shape. */
    f->shim.update.n_annotations = r->n_annotations;
    f->shim.update.annotations = (Pb__Task__UpdateTaskRequest__AnnotationsEntry **)r->annotations;
}

static void build_wait(struct forward *f)
{
    const Pb__Tasks__WaitRequest *r = (const Pb__Tasks__WaitRequest *)f->request;

    pb__task__wait_request__init(&f->shim.wait);
    f->shim.wait.id = r->container_id;
    f->shim.wait.exec_id = r->exec_id;
}

static ProtobufCMessage *convert_wait(struct forward *f, ProtobufCMessage *reply)
{
    Pb__Task__WaitResponse *w = (Pb__Task__WaitResponse *)reply;
    Pb__Tasks__WaitResponse *answer = malloc(sizeof(*answer));
    if (!answer)
        return NULL;
    pb__tasks__wait_response__init(answer);
    answer->exit_status = w->exit_status;
    answer->exited_at = TAKE(w->exited_at);
    return &answer->base;
}

static void build_delete_process(struct forward *f)
{
    const Pb__Tasks__DeleteProcessRequest *r = (const Pb__Tasks__DeleteProcessRequest *)f->request;

    pb__task__delete_request__init(&f->shim.remove);
    f->shim.remove.id = r->container_id;
    f->shim.remove.exec_id = r->exec_id;
}

static ProtobufCMessage *convert_delete_process(struct forward *f, ProtobufCMessage *reply)
{
    const Pb__Tasks__DeleteProcessRequest *r = (const Pb__Tasks__DeleteProcessRequest *)f->request;
    Pb__Task__DeleteResponse *d = (Pb__Task__DeleteResponse *)reply;
    Pb__Tasks__DeleteResponse *answer = malloc(sizeof(*answer));
    if (!answer)
        return NULL;
    pb__tasks__delete_response__init(answer);
    char *id = strdup(r->exec_id);
    if (id)
        answer->id = id;
    answer->pid = d->pid;
    answer->exit_status = d->exit_status;
    answer->exited_at = TAKE(d->exited_at);
    return &answer->base;
}

#define EMPTY &google__protobuf__empty__descriptor
static const struct forward_route
    route_start = {"Start",
                   &pb__task__start_response__descriptor,
                   RUNTIME_TIMEOUT_MS,
                   build_start,
                   convert_start,
                   NULL},
    route_get = {"State",
                 &pb__task__state_response__descriptor,
                 FORWARD_STATE_TIMEOUT,
                 build_get,
                 convert_get,
                 recover_get},
    route_kill = {"Kill", EMPTY, SHORT_TIMEOUT_MS, build_kill, convert_empty, NULL},
    route_exec = {"Exec", EMPTY, SHORT_TIMEOUT_MS, build_exec, convert_empty, NULL},
    route_resize = {"ResizePty", EMPTY, SHORT_TIMEOUT_MS, build_resize, convert_empty, NULL},
    route_close_io = {"CloseIO", EMPTY, SHORT_TIMEOUT_MS, build_close_io, convert_empty, NULL},
    route_pause = {"Pause", EMPTY, RUNTIME_TIMEOUT_MS, build_pause, convert_empty, NULL},
    route_resume = {"Resume", EMPTY, RUNTIME_TIMEOUT_MS, build_resume, convert_empty, NULL},
    route_pids = {"Pids",           &pb__task__pids_response__descriptor,
                  SHORT_TIMEOUT_MS, build_pids,
                  convert_pids,     NULL},
    route_update = {"Update", EMPTY, RUNTIME_TIMEOUT_MS, build_update, convert_empty, NULL},
    route_wait = {"Wait", &pb__task__wait_response__descriptor, 0, build_wait, convert_wait, NULL},
    route_delete_process = {"Delete",
                            &pb__task__delete_response__descriptor,
                            RUNTIME_TIMEOUT_MS,
                            build_delete_process,
                            convert_delete_process,
                            NULL};

#define PASS_THROUGH(name)                                                            \
    static void tasks_##name(struct grpc_call *call, const ProtobufCMessage *request) \
    {                                                                                 \
        tasks_forward(call, request, &route_##name);                                  \
    }
PASS_THROUGH(get)
PASS_THROUGH(kill)
PASS_THROUGH(resize)
PASS_THROUGH(pause)
PASS_THROUGH(resume)
PASS_THROUGH(pids)
PASS_THROUGH(update)
PASS_THROUGH(wait)

/* The exec id of a request, after its namespace as everywhere. */
static int validate_exec(struct grpc_call *call, const char *exec_id, struct err *e)
{
    const char *ns = NULL;

    int r = service_namespace(call, &ns, e);
    return r < 0 ? r : identifier_validate(exec_id, e);
}

static void expect_exec(struct grpc_call *call)
{
    const struct service_context *ctx = grpc_call_userdata(call);

    tasks_expect_exec(ctx->tasks);
}

static void tasks_exec(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct err e = ERR_INIT;

    if (validate_exec(call, ((const Pb__Tasks__ExecProcessRequest *)request)->exec_id, &e) < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    expect_exec(call);
    tasks_forward(call, request, &route_exec);
}

static void tasks_start(struct grpc_call *call, const ProtobufCMessage *request)
{
    /* Mostly it was expected a moment ago, but some time may lie between the two calls. */
    if (!str_empty(((const Pb__Tasks__StartRequest *)request)->exec_id))
        expect_exec(call);
    tasks_forward(call, request, &route_start);
}

static void tasks_delete_process(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct err e = ERR_INIT;

    /* An empty exec id would name the container's init, which Delete is for. */
    if (validate_exec(call, ((const Pb__Tasks__DeleteProcessRequest *)request)->exec_id, &e) < 0)
        grpc_call_finish(call, &e);
    else
        tasks_forward(call, request, &route_delete_process);
}

static void tasks_close_io(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct err e = ERR_INIT;
    const char *ns = NULL;

    if (((const Pb__Tasks__CloseIORequest *)request)->stdin) {
        tasks_forward(call, request, &route_close_io);
        return;
    }
    /* Closing nothing is done at once; the shim would close its end of stdin whatever the flag
     * says. */
    int r = service_namespace(call, &ns, &e);
    service_answer_empty(call, r, &e);
}

/* Create and Delete. */

static int create_task(struct grpc_call *call, const char *ns,
                       const Pb__Tasks__CreateTaskRequest *r, uint32_t *ret_pid, struct err *e)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(restore_done) struct restore restore = {0};
    _cleanup_(container_done) struct container container = {0};
    _cleanup_(any_done) struct any options = {0};
    Pb__Task__CreateTaskRequest shim = PB__TASK__CREATE_TASK_REQUEST__INIT;

    int result = container_get(ctx->db, ns, r->container_id, &container, e);
    if (result < 0)
        return result;
    if (pb_any_get(r->options, &options) < 0)
        return err_oom(e);
    shim.id = r->container_id;
    shim.n_rootfs = r->n_rootfs;
    shim.rootfs = r->rootfs;
    shim.terminal = r->terminal;
    shim.stdin = r->stdin;
    shim.stdout = r->stdout;
    shim.stderr = r->stderr;

    struct task_create create = {
        .ns = ns,
        .runtime = container.runtime_name,
        .runtime_path = r->runtime_path,
        .spec = &container.spec,
        .options = any_is_empty(&options) ? &container.runtime_options : &options,
        .task_options = &options,
        .container_options = &container.runtime_options,
        .request = &shim,
    };
    result = restore_init(&restore, call, ns, r, &create, e);
    return result < 0 ? result : tasks_create(ctx->tasks, &create, ret_pid, e);
}

static void tasks_create_handle(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Tasks__CreateTaskRequest *r = (const Pb__Tasks__CreateTaskRequest *)request;
    Pb__Tasks__CreateTaskResponse answer = PB__TASKS__CREATE_TASK_RESPONSE__INIT;
    struct err e = ERR_INIT;
    const char *ns = NULL;

    int result = service_namespace(call, &ns, &e);
    if (result >= 0)
        result = create_task(call, ns, r, &answer.pid, &e);
    if (result < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    answer.container_id = r->container_id;
    grpc_call_reply(call, &answer.base);
}

static int delete_task(struct service_context *ctx, const char *ns, const char *id,
                       struct task_exit *ret, struct err *e)
{
    _cleanup_(task_unrefp) struct task *task = tasks_find(ctx->tasks, ns, id);

    if (!task)
        return task_missing(ctx, ns, id, e);
    return tasks_delete(ctx->tasks, task, ret, e);
}

static void tasks_delete_handle(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Tasks__DeleteTaskRequest *r = (const Pb__Tasks__DeleteTaskRequest *)request;
    Pb__Tasks__DeleteResponse answer = PB__TASKS__DELETE_RESPONSE__INIT;
    struct err e = ERR_INIT;
    struct task_exit exit;
    const char *ns = NULL;

    int result = service_namespace(call, &ns, &e);
    if (result >= 0)
        result = delete_task(grpc_call_userdata(call), ns, r->container_id, &exit, &e);
    if (result < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    answer.pid = exit.pid;
    answer.exit_status = exit.status;
    answer.exited_at = pb_timestamp_new(exit.at);
    grpc_call_reply(call, &answer.base);
    if (answer.exited_at)
        pb_free(&answer.exited_at->base);
}

static const struct grpc_method methods[] = {
    {"Checkpoint", GRPC_UNARY, GRPC_ON_POOL, &pb__tasks__checkpoint_task_request__descriptor,
     tasks_checkpoint},
    {"CloseIO", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__close_iorequest__descriptor, tasks_close_io},
    {"Create", GRPC_UNARY, GRPC_ON_POOL, &pb__tasks__create_task_request__descriptor,
     tasks_create_handle},
    {"Delete", GRPC_UNARY, GRPC_ON_POOL, &pb__tasks__delete_task_request__descriptor,
     tasks_delete_handle},
    {"DeleteProcess", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__delete_process_request__descriptor,
     tasks_delete_process},
    {"Exec", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__exec_process_request__descriptor, tasks_exec},
    {"Get", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__get_request__descriptor, tasks_get},
    {"Kill", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__kill_request__descriptor, tasks_kill},
    {"List", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__list_tasks_request__descriptor,
     tasks_list_handle},
    {"ListPids", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__list_pids_request__descriptor, tasks_pids},
    {"Metrics", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__metrics_request__descriptor,
     tasks_metrics_handle},
    {"Pause", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__pause_task_request__descriptor, tasks_pause},
    {"ResizePty", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__resize_pty_request__descriptor,
     tasks_resize},
    {"Resume", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__resume_task_request__descriptor, tasks_resume},
    {"Start", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__start_request__descriptor, tasks_start},
    {"Update", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__update_task_request__descriptor, tasks_update},
    {"Wait", GRPC_UNARY, GRPC_ON_LOOP, &pb__tasks__wait_request__descriptor, tasks_wait},
};

void tasks_service_init(struct grpc_service *service, struct service_context *ctx)
{
    tasks_checkpoint_remove_old(ctx->root);
    *service = (struct grpc_service){
        .name = "containerd.services.tasks.v1.Tasks",
        .methods = methods,
        .n_methods = ARRAY_SIZE(methods),
        .userdata = ctx,
    };
}

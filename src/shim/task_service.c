/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/task_service.h"

#include "base/log.h"
#include "base/str.h"
#include "runc.v1.pb-c.h"
#include "shim/answer.h"
#include "shim/sandbox.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"

static struct shim *shim_of(const struct ttrpc_call *call)
{
    const struct task_service *service = ttrpc_call_userdata(call);
    return service->shim;
}

static struct container *find_container(struct ttrpc_call *call, const char *id)
{
    struct err e = ERR_INIT;
    struct container *c = container_find(shim_of(call), id, &e);

    if (!c)
        ttrpc_call_fail(call, &e);
    return c;
}

static struct process *find_process(struct ttrpc_call *call, const char *id, const char *exec_id)
{
    struct err e = ERR_INIT;
    struct container *c = container_find(shim_of(call), id, &e);
    struct process *p = c ? container_process(c, exec_id, &e) : NULL;

    if (!p)
        ttrpc_call_fail(call, &e);
    return p;
}

static void handle_checkpoint(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__CheckpointTaskRequest *r = (const void *)message;
    struct container *c = find_container(call, r->id);
    struct container_checkpoint request = {};
    Pb__Runc__CheckpointOptions *o = NULL;
    struct err e = ERR_INIT;

    if (!c)
        return;
    request.image_path = r->path;
    if (r->options && !str_empty(r->options->type_url)) {
        if (pb_any_is(r->options, &pb__runc__checkpoint_options__descriptor))
            o = pb__runc__checkpoint_options__unpack(NULL, r->options->value.len,
                                                     r->options->value.data);
        if (!o) {
            err_set(&e, ERR_INVALID_ARGUMENT,
                    "checkpoint options are not containerd.runc.v1.CheckpointOptions: invalid "
                    "argument");
            ttrpc_call_fail(call, &e);
            return;
        }
        if (str_empty(r->path))
            request.image_path = o->image_path;
        request.work_path = o->work_path;
        request.parent_path = o->parent_path;
        request.exit = o->exit;
        request.open_tcp = o->open_tcp;
        request.external_unix_sockets = o->external_unix_sockets;
        request.terminal = o->terminal;
        request.file_locks = o->file_locks;
        request.empty_namespaces = o->empty_namespaces;
        request.n_empty_namespaces = o->n_empty_namespaces;
    }
    container_checkpoint(c, &request, answer_done, call);
    if (o)
        pb__runc__checkpoint_options__free_unpacked(o, NULL);
}

static void handle_close_io(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__CloseIORequest *r = (const void *)message;
    struct process *p = find_process(call, r->id, r->exec_id);

    if (!p)
        return;
    stdio_close_input(&p->io);
    answer_empty(call);
}

static void handle_connect(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__ConnectRequest *r = (const void *)message;
    Pb__Task__ConnectResponse response = PB__TASK__CONNECT_RESPONSE__INIT;
    struct container *c = container_find(shim_of(call), r->id, NULL);

    response.shim_pid = (uint32_t)getpid();
    response.task_pid = c ? (uint32_t)c->init->exit.pid : 0;
    response.version = (char *)"wherry/" WHERRY_VERSION;
    ttrpc_call_reply(call, &response.base);
}

static void on_created(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Task__CreateTaskResponse response = PB__TASK__CREATE_TASK_RESPONSE__INIT;

    if (e) {
        ttrpc_call_fail(a->call, e);
    } else {
        const struct container *c = container_find(shim_of(a->call), a->id, NULL);
        response.pid = c ? (uint32_t)c->init->exit.pid : 0;
        ttrpc_call_reply(a->call, &response.base);
    }
    answer_free(a);
}

static void handle_create(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__CreateTaskRequest *r = (const void *)message;
    _cleanup_(mount_list_done) struct mount_list rootfs = {};
    struct err e = ERR_INIT;

    if (answer_take_mounts(r->rootfs, r->n_rootfs, r->id, &rootfs, &e) < 0) {
        ttrpc_call_fail(call, &e);
        return;
    }
    struct answer *a = answer_new(call, NULL, r->id);
    if (!a)
        return;
    const struct container_request request = {
        .id = r->id,
        .bundle = r->bundle,
        .rootfs = &rootfs,
        .terminal = r->terminal,
        .stdin_path = r->stdin,
        .stdout_path = r->stdout,
        .stderr_path = r->stderr,
        .checkpoint = r->checkpoint,
        .parent_checkpoint = r->parent_checkpoint,
        .options = r->options,
    };
    container_begin(shim_of(call), &request, on_created, a);
}

static void on_deleted(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Task__DeleteResponse response = PB__TASK__DELETE_RESPONSE__INIT;

    if (e) {
        ttrpc_call_fail(a->call, e);
    } else {
        response.pid = (uint32_t)a->exit.pid;
        response.exit_status = (uint32_t)a->exit.status;
        response.exited_at = pb_timestamp_new(a->exit.at);
        ttrpc_call_reply(a->call, &response.base);
        pb_free(response.exited_at ? &response.exited_at->base : NULL);
    }
    answer_free(a);
}

static void handle_delete(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__DeleteRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id, r->exec_id);
    struct answer *a = p ? answer_new(call, p, NULL) : NULL;

    if (a)
        process_delete(p, &a->exit, on_deleted, a);
}

static void handle_exec(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__ExecProcessRequest *r = (const void *)message;
    struct container *c = find_container(call, r->id);
    struct err e = ERR_INIT;

    if (!c)
        return;
    const struct container_exec request = {
        .exec_id = r->exec_id,
        .terminal = r->terminal,
        .stdin_path = r->stdin,
        .stdout_path = r->stdout,
        .stderr_path = r->stderr,
        .spec = r->spec ? (const char *)r->spec->value.data : "",
        .spec_len = r->spec ? r->spec->value.len : 0,
    };
    if (container_exec(c, &request, &e) < 0)
        ttrpc_call_fail(call, &e);
    else
        answer_empty(call);
}

static void handle_kill(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__KillRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id, r->exec_id);

    if (p)
        process_kill(p, (int)MIN_OF(r->signal, (uint32_t)INT32_MAX), r->all, answer_done, call);
}

static void handle_pause(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__PauseRequest *r = (const void *)message;
    struct container *c = find_container(call, r->id);

    if (c)
        container_pause(c, answer_done, call);
}

/* Names the exec behind a pid. */
static Google__Protobuf__Any *describe_pid(struct container *c, uint32_t pid)
{
    const struct process *p = container_process_by_pid(c, (pid_t)pid);
    Pb__Runc__ProcessDetails details = PB__RUNC__PROCESS_DETAILS__INIT;

    if (!p || process_is_init(p))
        return NULL;
    details.exec_id = p->exec_id;
    return pb_any_pack(&details.base);
}

static void on_pids(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Task__PidsResponse response = PB__TASK__PIDS_RESPONSE__INIT;
    struct err oom = ERR_INIT;

    if (!e && answer_describe_pids(a, describe_pid, &oom) < 0)
        e = &oom;
    if (e) {
        ttrpc_call_fail(a->call, e);
    } else {
        response.processes = a->infos;
        response.n_processes = a->n_infos;
        ttrpc_call_reply(a->call, &response.base);
    }
    answer_free(a);
}

static void handle_pids(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__PidsRequest *r = (const void *)message;
    struct container *c = find_container(call, r->id);
    struct answer *a = c ? answer_new(call, c->init, NULL) : NULL;

    if (a)
        container_list_pids(c, &a->pids, on_pids, a);
}

static void handle_resize_pty(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__ResizePtyRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id, r->exec_id);
    struct err e = ERR_INIT;

    if (!p)
        return;
    if (process_resize(p, r->width, r->height, &e) < 0)
        ttrpc_call_fail(call, &e);
    else
        answer_empty(call);
}

static void handle_resume(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__ResumeRequest *r = (const void *)message;
    struct container *c = find_container(call, r->id);

    if (c)
        container_resume(c, answer_done, call);
}

static void handle_shutdown(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__ShutdownRequest *r = (const void *)message;
    struct task_service *service = ttrpc_call_userdata(call);
    struct shim *s = service->shim;
    /* A daemon that has no record of a sandbox gets rid of it like this. */
    struct sandbox *sb = s->containers.n == 0 ? sandbox_find(s, r->id, NULL) : NULL;

    answer_empty(call);
    if (sb)
        sandbox_shut_down(sb);
    else if (shim_is_empty(service->shim))
        service->shutdown(service);
}

static void on_started(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Task__StartResponse response = PB__TASK__START_RESPONSE__INIT;

    if (e) {
        ttrpc_call_fail(a->call, e);
    } else {
        response.pid = (uint32_t)a->process->exit.pid;
        ttrpc_call_reply(a->call, &response.base);
    }
    answer_free(a);
}

static void handle_start(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__StartRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id, r->exec_id);
    struct answer *a = p ? answer_new(call, p, NULL) : NULL;

    if (a)
        process_start(p, on_started, a);
}

static void handle_state(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__StateRequest *r = (const void *)message;
    struct process *p = container_find_creating(shim_of(call), r->id);
    Pb__Task__StateResponse response = PB__TASK__STATE_RESPONSE__INIT;

    if (!p || !str_empty(r->exec_id))
        p = find_process(call, r->id, r->exec_id);
    if (!p)
        return;
    bool has_ended = answer_has_ended(p);
    response.id = (char *)process_id(p);
    response.bundle = p->container->bundle;
    response.pid = (uint32_t)p->exit.pid;
    response.status = answer_status(p);
    response.stdin = (char *)str_or_empty(p->stdin_path);
    response.stdout = (char *)str_or_empty(p->stdout_path);
    response.stderr = (char *)str_or_empty(p->stderr_path);
    response.terminal = p->terminal;
    response.exit_status = has_ended ? (uint32_t)p->exit.status : 0;
    response.exited_at = pb_timestamp_new(has_ended ? p->exit.at : (struct timespec){});
    ttrpc_call_reply(call, &response.base);
    pb_free(response.exited_at ? &response.exited_at->base : NULL);
}

static void handle_stats(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__StatsRequest *r = (const void *)message;
    const struct container *c = find_container(call, r->id);
    Pb__Task__StatsResponse response = PB__TASK__STATS_RESPONSE__INIT;
    struct err e = ERR_INIT;

    if (!c)
        return;
    if (cgroup_stats(&c->cgroup, &response.stats, &e) < 0) {
        ttrpc_call_fail(call, &e);
        return;
    }
    ttrpc_call_reply(call, &response.base);
    pb_free(&response.stats->base);
}

static void handle_update(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__UpdateTaskRequest *r = (const void *)message;
    struct container *c = find_container(call, r->id);
    struct err e = ERR_INIT;

    if (!c)
        return;
    if (!r->resources || r->resources->value.len == 0) {
        err_set(&e, ERR_INVALID_ARGUMENT, "no resources to update: invalid argument");
        ttrpc_call_fail(call, &e);
        return;
    }
    container_set_resources(c, (const char *)r->resources->value.data, r->resources->value.len,
                            answer_done, call);
}

static void on_waited(void *userdata, const struct process_exit *exit)
{
    struct ttrpc_call *call = userdata;
    Pb__Task__WaitResponse response = PB__TASK__WAIT_RESPONSE__INIT;

    response.exit_status = (uint32_t)exit->status;
    response.exited_at = pb_timestamp_new(exit->at);
    ttrpc_call_reply(call, &response.base);
    pb_free(response.exited_at ? &response.exited_at->base : NULL);
}

static void handle_wait(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Task__WaitRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id, r->exec_id);
    struct err e = ERR_INIT;

    if (p && process_wait(p, on_waited, call, &e) < 0)
        ttrpc_call_fail(call, &e);
}

static const struct ttrpc_method methods[] = {
    {"Checkpoint", &pb__task__checkpoint_task_request__descriptor, handle_checkpoint},
    {"CloseIO", &pb__task__close_iorequest__descriptor, handle_close_io},
    {"Connect", &pb__task__connect_request__descriptor, handle_connect},
    {"Create", &pb__task__create_task_request__descriptor, handle_create},
    {"Delete", &pb__task__delete_request__descriptor, handle_delete},
    {"Exec", &pb__task__exec_process_request__descriptor, handle_exec},
    {"Kill", &pb__task__kill_request__descriptor, handle_kill},
    {"Pause", &pb__task__pause_request__descriptor, handle_pause},
    {"Pids", &pb__task__pids_request__descriptor, handle_pids},
    {"ResizePty", &pb__task__resize_pty_request__descriptor, handle_resize_pty},
    {"Resume", &pb__task__resume_request__descriptor, handle_resume},
    {"Shutdown", &pb__task__shutdown_request__descriptor, handle_shutdown},
    {"Start", &pb__task__start_request__descriptor, handle_start},
    {"State", &pb__task__state_request__descriptor, handle_state},
    {"Stats", &pb__task__stats_request__descriptor, handle_stats},
    {"Update", &pb__task__update_task_request__descriptor, handle_update},
    {"Wait", &pb__task__wait_request__descriptor, handle_wait},
};

const struct ttrpc_service task_services[TASK_SERVICES] = {
    {"containerd.task.v2.Task", methods, ARRAY_SIZE(methods)},
    {"containerd.task.v3.Task", methods, ARRAY_SIZE(methods)},
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/shim_service.h"

#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "linux.runc.pb-c.h"
#include "runtime.linux.shim.v1.pb-c.h"
#include "shim/answer.h"
#include "wire/pb.h"

static struct shim *shim_of(const struct ttrpc_call *call)
{
    const struct task_service *service = ttrpc_call_userdata(call);
    return service->shim;
}

/* The only one; NULL and the call failed when it is not created. */
static struct container *find_container(struct ttrpc_call *call)
{
    MAP_FOREACH (entry, &shim_of(call)->containers) {
        struct container *c = entry->value;
        if (c->init->state != PROCESS_CREATING)
            return c;
    }
    answer_error(call, ERR_FAILED_PRECONDITION, "container must be created: failed precondition");
    return NULL;
}

static struct process *look_up(struct ttrpc_call *call, const char *id)
{
    MAP_FOREACH (entry, &shim_of(call)->containers) {
        struct container *c = entry->value;
        if (c->init->state == PROCESS_CREATING)
            continue;
        return str_eq(c->id, id) ? c->init : map_get(&c->execs, id);
    }
    return NULL;
}

static struct process *find_process(struct ttrpc_call *call, const char *id)
{
    struct process *p = look_up(call, id);
    struct err e = ERR_INIT;

    if (!p) {
        err_set(&e, ERR_NOT_FOUND, "process %s does not exist: not found", id);
        ttrpc_call_fail(call, &e);
    }
    return p;
}

static void handle_checkpoint(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__CheckpointTaskRequest *r = (const void *)message;
    struct container *c = find_container(call);
    struct container_checkpoint request = {};
    Pb__Linuxrunc__CheckpointOptions *o = NULL;

    if (!c)
        return;
    request.image_path = r->path;
    if (r->options && !str_empty(r->options->type_url)) {
        if (pb_any_is(r->options, &pb__linuxrunc__checkpoint_options__descriptor))
            o = pb__linuxrunc__checkpoint_options__unpack(NULL, r->options->value.len,
                                                          r->options->value.data);
        if (!o) {
            answer_error(
                call, ERR_INVALID_ARGUMENT,
                "checkpoint options are not containerd.linux.runc.CheckpointOptions: invalid "
                "argument");
            return;
        }
        if (str_empty(r->path))
            request.image_path = o->image_path;
        request.work_path = o->work_path;
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
        pb__linuxrunc__checkpoint_options__free_unpacked(o, NULL);
}

static void handle_close_io(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__CloseIORequest *r = (const void *)message;
    struct process *p = find_process(call, r->id);

    if (!p)
        return;
    stdio_close_input(&p->io);
    answer_empty(call);
}

static void on_created(void *userdata, const struct err *e)
{
    struct ttrpc_call *call = userdata;
    Pb__Shimv1__CreateTaskResponse response = PB__SHIMV1__CREATE_TASK_RESPONSE__INIT;

    if (e) {
        ttrpc_call_fail(call, e);
        return;
    }
    MAP_FOREACH (entry, &shim_of(call)->containers) {
        const struct container *c = entry->value;
        response.pid = (uint32_t)c->init->exit.pid;
    }
    ttrpc_call_reply(call, &response.base);
}

static void handle_create(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__CreateTaskRequest *r = (const void *)message;
    _cleanup_(mount_list_done) struct mount_list rootfs = {};
    struct shim *shim = shim_of(call);
    struct err e = ERR_INIT;

    if (shim->containers.n > 0) {
        answer_error(call, ERR_ALREADY_EXISTS, "this shim has a container: already exists");
        return;
    }
    if (answer_take_mounts(r->rootfs, r->n_rootfs, r->id, &rootfs, &e) < 0) {
        ttrpc_call_fail(call, &e);
        return;
    }
    const struct container_request request = {
        .id = r->id,
        .bundle = r->bundle,
        .runtime_name = r->runtime,
        .rootfs = &rootfs,
        .terminal = r->terminal,
        .stdin_path = r->stdin,
        .stdout_path = r->stdout,
        .stderr_path = r->stderr,
        .checkpoint = r->checkpoint,
        .parent_checkpoint = r->parent_checkpoint,
        .options = r->options,
    };
    container_begin(shim, &request, on_created, call);
}

static void on_deleted(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Shimv1__DeleteResponse response = PB__SHIMV1__DELETE_RESPONSE__INIT;

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

static void delete_process(struct ttrpc_call *call, struct process *p)
{
    struct answer *a = answer_new(call, p, NULL);

    if (a)
        process_delete(p, &a->exit, on_deleted, a);
}

static void handle_delete(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    struct container *c = find_container(call);

    if (c)
        delete_process(call, c->init);
}

static void handle_delete_process(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__DeleteProcessRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id);

    if (!p)
        return;
    if (process_is_init(p))
        answer_error(call, ERR_INVALID_ARGUMENT,
                     "cannot delete init process with DeleteProcess: invalid argument");
    else
        delete_process(call, p);
}

static void handle_exec(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__ExecProcessRequest *r = (const void *)message;
    struct container *c = find_container(call);
    struct err e = ERR_INIT;

    if (!c)
        return;
    const struct container_exec request = {
        .exec_id = r->id,
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
    const Pb__Shimv1__KillRequest *r = (const void *)message;
    struct container *c = str_empty(r->id) ? find_container(call) : NULL;
    struct process *p = str_empty(r->id) ? (c ? c->init : NULL) : find_process(call, r->id);

    if (p)
        process_kill(p, (int)MIN_OF(r->signal, (uint32_t)INT32_MAX), r->all, answer_done, call);
}

/* Unlike the task service this names init too. */
static Google__Protobuf__Any *describe_pid(struct container *c, uint32_t pid)
{
    const struct process *p = container_process_by_pid(c, (pid_t)pid);
    Pb__Linuxrunc__ProcessDetails details = PB__LINUXRUNC__PROCESS_DETAILS__INIT;

    if (!p)
        return NULL;
    details.exec_id = (char *)process_id(p);
    return pb_any_pack(&details.base);
}

static void on_pids(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Shimv1__ListPidsResponse response = PB__SHIMV1__LIST_PIDS_RESPONSE__INIT;
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

static void handle_list_pids(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    struct container *c = find_container(call);
    struct answer *a = c ? answer_new(call, c->init, NULL) : NULL;

    if (a)
        container_list_pids(c, &a->pids, on_pids, a);
}

static void handle_pause(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    struct container *c = find_container(call);

    if (c)
        container_pause(c, answer_done, call);
}

static void handle_resize_pty(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__ResizePtyRequest *r = (const void *)message;
    struct process *p = look_up(call, r->id);
    struct err e = ERR_INIT;

    if (str_empty(r->id))
        err_set(&e, ERR_INVALID_ARGUMENT, "id not provided: invalid argument");
    else if (!p)
        err_set(&e, ERR_UNKNOWN, "process does not exist %s", r->id);
    if (e.code != ERR_OK || process_resize(p, r->width, r->height, &e) < 0)
        ttrpc_call_fail(call, &e);
    else
        answer_empty(call);
}

static void handle_resume(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    struct container *c = find_container(call);

    if (c)
        container_resume(c, answer_done, call);
}

static void handle_shim_info(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    Pb__Shimv1__ShimInfoResponse response = PB__SHIMV1__SHIM_INFO_RESPONSE__INIT;

    response.shim_pid = (uint32_t)getpid();
    ttrpc_call_reply(call, &response.base);
}

static void on_started(void *userdata, const struct err *e)
{
    struct answer *a = userdata;
    Pb__Shimv1__StartResponse response = PB__SHIMV1__START_RESPONSE__INIT;

    if (e) {
        ttrpc_call_fail(a->call, e);
    } else {
        response.id = (char *)process_id(a->process);
        response.pid = (uint32_t)a->process->exit.pid;
        ttrpc_call_reply(a->call, &response.base);
    }
    answer_free(a);
}

static void handle_start(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__StartRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id);
    struct answer *a = p ? answer_new(call, p, NULL) : NULL;

    if (a)
        process_start(p, on_started, a);
}

static void handle_state(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__StateRequest *r = (const void *)message;
    struct process *p = container_find_creating(shim_of(call), r->id);

    if (!p)
        p = find_process(call, r->id);
    Pb__Shimv1__StateResponse response = PB__SHIMV1__STATE_RESPONSE__INIT;

    if (!p)
        return;
    bool has_ended = answer_has_ended(p);
    response.id = (char *)process_id(p);
    response.bundle = p->container->bundle;
    /* One that is being made may still come to nothing. */
    response.pid = p->state == PROCESS_CREATING ? 0 : (uint32_t)p->exit.pid;
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

static void handle_update(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__UpdateTaskRequest *r = (const void *)message;
    struct container *c = find_container(call);

    if (!c)
        return;
    if (!r->resources || r->resources->value.len == 0)
        answer_error(call, ERR_INVALID_ARGUMENT, "no resources to update: invalid argument");
    else
        container_set_resources(c, (const char *)r->resources->value.data, r->resources->value.len,
                                answer_done, call);
}

static void on_waited(void *userdata, const struct process_exit *exit)
{
    struct ttrpc_call *call = userdata;
    Pb__Shimv1__WaitResponse response = PB__SHIMV1__WAIT_RESPONSE__INIT;

    response.exit_status = (uint32_t)exit->status;
    response.exited_at = pb_timestamp_new(exit->at);
    ttrpc_call_reply(call, &response.base);
    pb_free(response.exited_at ? &response.exited_at->base : NULL);
}

static void handle_wait(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Shimv1__WaitRequest *r = (const void *)message;
    struct process *p = find_process(call, r->id);
    struct err e = ERR_INIT;

    if (p && process_wait(p, on_waited, call, &e) < 0)
        ttrpc_call_fail(call, &e);
}

static const struct ttrpc_method methods[] = {
    {"Checkpoint", &pb__shimv1__checkpoint_task_request__descriptor, handle_checkpoint},
    {"CloseIO", &pb__shimv1__close_iorequest__descriptor, handle_close_io},
    {"Create", &pb__shimv1__create_task_request__descriptor, handle_create},
    {"Delete", &google__protobuf__empty__descriptor, handle_delete},
    {"DeleteProcess", &pb__shimv1__delete_process_request__descriptor, handle_delete_process},
    {"Exec", &pb__shimv1__exec_process_request__descriptor, handle_exec},
    {"Kill", &pb__shimv1__kill_request__descriptor, handle_kill},
    {"ListPids", &pb__shimv1__list_pids_request__descriptor, handle_list_pids},
    {"Pause", &google__protobuf__empty__descriptor, handle_pause},
    {"ResizePty", &pb__shimv1__resize_pty_request__descriptor, handle_resize_pty},
    {"Resume", &google__protobuf__empty__descriptor, handle_resume},
    {"ShimInfo", &google__protobuf__empty__descriptor, handle_shim_info},
    {"Start", &pb__shimv1__start_request__descriptor, handle_start},
    {"State", &pb__shimv1__state_request__descriptor, handle_state},
    {"Update", &pb__shimv1__update_task_request__descriptor, handle_update},
    {"Wait", &pb__shimv1__wait_request__descriptor, handle_wait},
};

const struct ttrpc_service shim_service = {"containerd.runtime.linux.shim.v1.Shim", methods,
                                           ARRAY_SIZE(methods)};

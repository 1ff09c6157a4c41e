/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks.Create for runtime v1: as in task_create.c, with what is of v1 alone. The container's
 * options are RuncOptions, those of the task CreateOptions, and the request that the shim gets has
 * a form of its own.
 */
#include "base/log.h"
#include "base/str.h"
#include "linux.runc.pb-c.h"
#include "runtime/linux_cgroup.h"
#include "runtime/linux_end.h"
#include "runtime/shim_v1.h"
#include "runtime/task_events.h"
#include "runtime/task_images.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

#define CREATE_TIMEOUT_MS 150000

bool linux_runs(const struct tasks *t, const char *runtime)
{
    return str_eq(runtime, LINUX_RUNTIME_NAME) && !t->options.linux_v1.is_disabled;
}

/* Absent options are those of an empty message. */
static int read_options(const struct any *options, const ProtobufCMessageDescriptor *type,
                        ProtobufCMessage **ret, struct err *e)
{
    static const struct any none;

    if (!options)
        options = &none;
    if (!any_is_empty(options) &&
        !str_eq(pb_type_name(str_or_empty(options->type_url)), type->name))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "invalid runtime options format: %s where %s is wanted: invalid argument",
                       str_or_empty(options->type_url), type->name);
    int r = pb_unpack(type, options->value, options->value_len, ret, e);
    return r < 0 ? err_wrap(e, "decode runtime options") : 0;
}

/* The OCI runtime: what the container's options name, else the configuration; else, for our shim,
 * what can run this container here, and what other shims are made for. */
static int choose_binary(struct tasks *t, const struct task *task, const char *named,
                         const struct any *spec, char **ret, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {0};

    if (str_empty(named))
        named = t->options.linux_v1.runtime;
    if (str_empty(named) && task->binary.is_ours) {
        int r = oci_config_parse((const char *)spec->value, spec->value_len, &config, e);
        return r < 0 ? r : task_name_runtime(t, &config, ret, e);
    }
    *ret = strdup(str_empty(named) ? "runc" : named);
    return *ret ? 0 : err_oom(e);
}

/* The container's options over the configuration's. */
static int choose_runtime(struct tasks *t, const struct task *task,
                          const Pb__Linuxrunc__RuncOptions *options, const struct any *spec,
                          struct linux_runtime *ret, struct err *e)
{
    const char *root = options->runtime_root;

    if (str_empty(root))
        root = t->options.linux_v1.runtime_root;
    *ret = (struct linux_runtime){
        .runtime_root = strdup(str_empty(root) ? "/run/containerd/runc" : root),
        .criu = strdup(options->criu_path),
        .systemd_cgroup = options->systemd_cgroup,
    };
    if (!ret->runtime_root || !ret->criu)
        return err_oom(e);
    return choose_binary(t, task, options->runtime, spec, &ret->runtime, e);
}

void linux_open_logs(struct task *task)
{
    struct shim_log **logs[] = {&task->log, &task->error_log};

    for (size_t i = 0; i < ARRAY_SIZE(logs); i++) {
        int fd = -EBADF;
        int r = linux_bundle_open_log(&task->bundle, (enum linux_log)i, true, &fd);
        if (r >= 0)
            *logs[i] = shim_log_new(task->tasks->loop, &task->bundle, fd);
        else
            log_warn("open log of the shim in %s: %s", task->bundle.work_path, err_strerror(r));
    }
}

static int call_create(struct task *task, struct shim *shim, const struct linux_runtime *runtime,
                       const struct task_create *create, uint32_t *ret_pid, struct err *e)
{
    const Pb__Task__CreateTaskRequest *from = create->request;
    Pb__Shimv1__CreateTaskRequest request = PB__SHIMV1__CREATE_TASK_REQUEST__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    ProtobufCMessage *reply = NULL;

    request.id = task->id;
    request.bundle = task->bundle.path;
    request.runtime = runtime->runtime;
    request.n_rootfs = from->n_rootfs;
    request.rootfs = from->rootfs;
    request.terminal = from->terminal;
    request.stdin = from->stdin;
    request.stdout = from->stdout;
    request.stderr = from->stderr;
    request.checkpoint = from->checkpoint;
    request.parent_checkpoint = from->parent_checkpoint;
    if (create->task_options && !any_is_empty(create->task_options)) {
        any.type_url = create->task_options->type_url;
        any.value = (ProtobufCBinaryData){.len = create->task_options->value_len,
                                          .data = create->task_options->value};
        request.options = &any;
    }
    int r =
        shim_call_sync(shim, task->ns, "Create", &request.base,
                       &pb__shimv1__create_task_response__descriptor, CREATE_TIMEOUT_MS, &reply, e);
    if (r < 0)
        return r;
    *ret_pid = ((Pb__Shimv1__CreateTaskResponse *)reply)->pid;
    pb_free(reply);
    return 0;
}

static void watch_run(void *arg)
{
    linux_cgroup_watch(arg);
}

static int create_with_shim(struct tasks *t, struct task *task, const struct linux_runtime *runtime,
                            const char *shim_cgroup, const struct task_create *create,
                            uint32_t *ret_pid, struct err *e)
{
    _cleanup_(shim_endpoint_done) struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;
    struct shim *shim = NULL;

    const struct linux_options *options = &t->options.linux_v1;
    int r = options->no_shim
                ? linux_launch_local(options, &task->bundle, runtime, &endpoint, e)
                : linux_launch(&t->options.host, task->binary.path, &task->bundle, runtime,
                               shim_cgroup, options->shim_debug, &endpoint, e);
    if (r < 0)
        return err_wrap(e, "failed to start shim");
    r = tasks_connect_sync(t, &endpoint, &shim, e);
    if (r >= 0)
        r = call_create(task, shim, runtime, create, ret_pid, e);
    if (r < 0) {
        if (!tasks_are_left(t))
            task_abandon(task, shim, &endpoint);
        shim_unref(shim);
        return r;
    }
    task->group = *ret_pid ? linux_cgroup_new(task, (pid_t)*ret_pid) : NULL;
    if (task->group)
        loop_run(t->loop, watch_run, task->group);
    task_events_created(task, create->request, *ret_pid);
    task_go_live(task, shim);
    return 0;
}

static int create_with_options(struct tasks *t, struct task *task,
                               const Pb__Linuxrunc__RuncOptions *runc,
                               const Pb__Linuxrunc__CreateOptions *options,
                               const struct task_create *create, uint32_t *ret_pid, struct err *e)
{
    _cleanup_(linux_runtime_done) struct linux_runtime runtime = {0};

    int r = choose_runtime(t, task, runc, create->spec, &runtime, e);
    if (r < 0)
        return r;
    r = linux_bundle_create(t->options.root, t->options.state, task->ns, task->id,
                            create->spec->value, create->spec->value_len, &runtime, &task->bundle,
                            e);
    if (r < 0)
        return r;
    if (!t->options.linux_v1.no_shim)
        linux_open_logs(task);
    r = task_images_make(task, create, e);
    if (r >= 0)
        r = create_with_shim(t, task, &runtime, options->shim_cgroup, create, ret_pid, e);
    if (r < 0 && !tasks_are_left(t)) {
        struct err remove = ERR_INIT;
        if (bundle_remove(&task->bundle, &remove) < 0)
            log_warn("remove bundle of task %s: %s", task->key, remove.msg);
    }
    return r;
}

int linux_create(struct tasks *t, struct task *task, const struct task_create *create,
                 uint32_t *ret_pid, struct err *e)
{
    ProtobufCMessage *runc = NULL;
    ProtobufCMessage *options = NULL;

    task->is_linux = true;
    int r =
        read_options(create->container_options, &pb__linuxrunc__runc_options__descriptor, &runc, e);
    if (r >= 0)
        r = read_options(create->task_options, &pb__linuxrunc__create_options__descriptor, &options,
                         e);
    if (r >= 0 && t->options.linux_v1.no_shim)
        task->binary.is_ours = true;
    else if (r >= 0)
        r = linux_find_shim(&t->options.linux_v1, t->options.daemon_dir, &task->binary, e);
    if (r >= 0)
        r = create_with_options(t, task, (const Pb__Linuxrunc__RuncOptions *)runc,
                                (const Pb__Linuxrunc__CreateOptions *)options, create, ret_pid, e);
    pb_free(runc);
    pb_free(options);
    return r;
}

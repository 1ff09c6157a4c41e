/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks.Create: bundle, shim, container. Each step is undone when a later one fails; a daemon that
 * dies in between leaves a bundle, by which the next one finds the rest.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "oci/config.h"
#include "oci/runtime_choice.h"
#include "runc.v1.pb-c.h"
#include "runtime/shim_start.h"
#include "runtime/task_images.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

/* The runtime is given two minutes by the shim; what is over that is the shim's fault. */
#define CREATE_TIMEOUT_MS 150000
#define ABANDON_TIMEOUT_MS 10000

/* The configured OCI runtime, else the first that can run this container here. The facts are found
 * once; again when they lead nowhere, since a runtime may have been installed meanwhile. */
int task_name_runtime(struct tasks *t, const struct oci_config *config, char **ret, struct err *e)
{
    _cleanup_(runtime_choice_done) struct runtime_choice choice = {0};

    if (!str_empty(t->options.oci_runtime)) {
        *ret = strdup(t->options.oci_runtime);
        return *ret ? 0 : err_oom(e);
    }
    pthread_mutex_lock(&t->facts_lock);
    int r = runtime_choice_make(&t->facts, config->oci_version, &choice, e);
    if (r < 0) {
        struct runtime_facts facts = {0};
        if (runtime_facts_find(NULL, NULL, NULL, &facts) >= 0) {
            runtime_facts_done(&t->facts);
            t->facts = facts;
            r = runtime_choice_make(&t->facts, config->oci_version, &choice, e);
        }
    }
    pthread_mutex_unlock(&t->facts_lock);
    if (r < 0)
        return r;
    log_debug("OCI runtime %s: %s", choice.path, choice.why);
    *ret = TAKE(choice.path);
    return 0;
}

/* The options for our shim: the client's, with the OCI runtime named. */
static int choose_runtime(struct tasks *t, const struct oci_config *config,
                          const struct any *options, Pb__Runc__Options **ret, struct err *e)
{
    ProtobufCMessage *message = NULL;
    static const struct any none;

    if (!options)
        options = &none;
    if (!any_is_empty(options) &&
        !str_eq(pb_type_name(options->type_url), "containerd.runc.v1.Options"))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "runtime options of type %s are not for this runtime: invalid argument",
                       options->type_url);
    int r =
        pb_unpack(&pb__runc__options__descriptor, options->value, options->value_len, &message, e);
    if (r < 0)
        return err_wrap(e, "decode runtime options");

    Pb__Runc__Options *o = (Pb__Runc__Options *)message;
    if (str_empty(o->binary_name)) {
        char *path = NULL;
        r = task_name_runtime(t, config, &path, e);
        if (r < 0) {
            pb_free(message);
            return r;
        }
        if (o->binary_name != protobuf_c_empty_string)
            free(o->binary_name);
        o->binary_name = path;
    }
    *ret = o;
    return 0;
}

static int launch(struct tasks *t, struct task *task, const struct oci_config *config,
                  const Pb__Runc__Options *runc, const struct any *options,
                  struct shim_endpoint *ret, struct err *e)
{
    const char *group = str_empty(config->group) ? task->id : config->group;

    /* A group's first container starts the shim, the others find it by asking `start`. */
    if (task->binary.is_ours && str_eq(group, task->id)) {
        int r = shim_launch_own(&t->options.host, task->binary.path, &task->bundle, group,
                                runc->shim_cgroup, ret, e);
        if (r >= 0 || e->code != ERR_ALREADY_EXISTS)
            return r;
        err_clear(e);
    }
    return shim_start(&t->options.host, task->binary.path, &task->bundle, options, ret, e);
}

bool tasks_are_left(const struct tasks *t)
{
    return atomic_load(&t->detached);
}

void task_abandon(struct task *task, struct shim *shim, struct shim_endpoint *endpoint)
{
    struct tasks *t = task->tasks;
    struct err e = ERR_INIT;
    struct task_exit exit;

    if (shim) {
        Pb__Task__DeleteRequest request = PB__TASK__DELETE_REQUEST__INIT;
        request.id = task->id;
        int r =
            shim_call_sync(shim, task->ns, "Delete", &request.base,
                           &pb__task__delete_response__descriptor, ABANDON_TIMEOUT_MS, NULL, &e);
        bool clean = task->is_linux && (r >= 0 || e.code == ERR_NOT_FOUND);
        task_end_shim(task, shim);
        if (clean)
            return;
    } else if (endpoint->proc.pid > 0) {
        proc_kill(&endpoint->proc, SIGKILL);
        proc_reap(&endpoint->proc, true, &(int){0});
        shim_socket_remove(t, endpoint->address);
    }
    /* Also when the shim says that it is clean: an OCI runtime that died half way may have made
     * what neither of the two knows of, and this looks for it. */
    if (task_clean_up(task, &exit, &e) < 0)
        log_warn("clean up after task %s: %s", task->key, e.msg);
}

/* A `start` that failed may have left a process, and what it made. */
static void task_clear_away(struct task *task)
{
    struct err e = ERR_INIT;
    struct task_exit exit;

    task_kill_unreachable(task);
    if (task_clean_up(task, &exit, &e) < 0)
        log_warn("clean up after task %s: %s", task->key, e.msg);
}

static int create_container(struct task *task, struct shim *shim, const struct task_create *create,
                            const struct any *options, uint32_t *ret_pid, struct err *e)
{
    Pb__Task__CreateTaskRequest *request = create->request;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    ProtobufCMessage *reply = NULL;

    if (options && !any_is_empty(options)) {
        any.type_url = options->type_url;
        any.value = (ProtobufCBinaryData){.len = options->value_len, .data = options->value};
        request->options = &any;
    }
    request->bundle = task->bundle.path;
    int r =
        shim_call_sync(shim, task->ns, "Create", &request->base,
                       &pb__task__create_task_response__descriptor, CREATE_TIMEOUT_MS, &reply, e);
    request->options = NULL;
    request->bundle = (char *)protobuf_c_empty_string;
    if (r < 0)
        return err_wrap(e, "failed to create shim task");
    *ret_pid = ((Pb__Task__CreateTaskResponse *)reply)->pid;
    pb_free(reply);
    return 0;
}

void task_go_live(struct task *task, struct shim *shim)
{
    struct tasks *t = task->tasks;

    pthread_mutex_lock(&t->lock);
    task->shim = shim;
    /* It may have died since it answered; its death was not ours to see then. */
    task->state = atomic_load(&shim->dead) ? TASK_LOST : TASK_LIVE;
    bool lost = task->state == TASK_LOST;
    pthread_mutex_unlock(&t->lock);
    if (lost)
        task_cleanup_start(task);
}

static int create_with_shim(struct tasks *t, struct task *task, const struct task_create *create,
                            uint32_t *ret_pid, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {0};
    _cleanup_(shim_endpoint_done) struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;
    _cleanup_(any_done) struct any options = {0};
    Pb__Runc__Options *runc = NULL;
    struct shim *shim = NULL;

    int r =
        oci_config_parse((const char *)create->spec->value, create->spec->value_len, &config, e);
    if (r < 0)
        return r;
    if (task->binary.is_ours) {
        r = choose_runtime(t, &config, create->options, &runc, e);
        if (r >= 0 && any_pack(&options, &runc->base) < 0)
            r = err_oom(e);
    } else if (create->options) {
        r = any_copy(&options, create->options) < 0 ? err_oom(e) : 0;
    }
    if (r >= 0)
        r = launch(t, task, &config, runc, &options, &endpoint, e);
    if (r < 0) {
        err_wrap(e, "failed to start shim");
        task_clear_away(task);
    }
    if (runc)
        pb_free(&runc->base);
    if (r < 0)
        return r;

    r = bundle_write_bootstrap(&task->bundle, endpoint.address, endpoint.version, e);
    if (r >= 0)
        r = tasks_connect_sync(t, &endpoint, &shim, e);
    if (r >= 0)
        r = create_container(task, shim, create, &options, ret_pid, e);
    if (r < 0) {
        if (!tasks_are_left(t))
            task_abandon(task, shim, &endpoint);
        shim_unref(shim);
        return r;
    }
    task_go_live(task, shim);
    return 0;
}

static int create_reserved(struct tasks *t, struct task *task, const struct task_create *create,
                           uint32_t *ret_pid, struct err *e)
{
    const char *runtime = str_empty(create->runtime_path) ? create->runtime : create->runtime_path;

    int r = shim_binary_resolve(runtime, t->options.own_shim, t->options.shim,
                                t->options.daemon_dir, &task->binary, e);
    if (r < 0)
        return err_wrap(e, "failed to start shim: failed to resolve runtime path");
    r = bundle_create(t->options.root, t->options.state, task->ns, task->id, create->spec->value,
                      create->spec->value_len, task->binary.path, &task->bundle, e);
    if (r < 0)
        return r;
    task->log = shim_log_open(t->loop, &task->bundle);
    r = task_images_make(task, create, e);
    if (r >= 0)
        r = create_with_shim(t, task, create, ret_pid, e);
    if (r < 0 && !tasks_are_left(t)) {
        struct err remove = ERR_INIT;
        if (bundle_remove(&task->bundle, &remove) < 0)
            log_warn("remove bundle of task %s: %s", task->key, remove.msg);
    }
    return r;
}

int tasks_create(struct tasks *t, const struct task_create *create, uint32_t *ret_pid,
                 struct err *e)
{
    cgroup_warm_start(&t->warm);

    _cleanup_(task_unrefp) struct task *task = task_new(t, create->ns, create->request->id);
    if (!task)
        return err_oom(e);
    task->state = TASK_CREATING;
    tasks_wait_for_orphans(t);
    int r = tasks_add(t, task, e);
    if (r < 0)
        return r;
    if (linux_runs(t, create->runtime))
        r = linux_create(t, task, create, ret_pid, e);
    else
        r = create_reserved(t, task, create, ret_pid, e);
    if (r < 0)
        tasks_remove(t, task);
    return r;
}

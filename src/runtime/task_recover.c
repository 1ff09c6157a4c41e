/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart: every bundle is a task. Its shim is asked with Connect, all shims at once; each answer
 * decides about its own tasks alone.
 *
 *     answers, knows the container        LIVE
 *     answers, is still making it         asked again until it has, then LIVE: the client may start or delete it
 *     answers, does not know it           a create or delete was interrupted: shim ended, bundle removed
 *     no socket, refused                  LOST: cleaned up, its exit published
 *     does not answer in time             LIVE: a stopped shim is not a dead one; its callers time out
 */
#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "oci/config.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

/* How often, and until when, a shim is asked whether it has made its container: longer than it gives the OCI
 * runtime for it. */
#define POLL_MS 50
#define POLL_MAX_MS 150000

struct recovery {
    struct task *task;
    struct shim *shim;
    Pb__Task__ConnectRequest connect;
    Pb__Task__StateRequest state;
    struct event_timer timer;
    uint64_t since_ms;
    struct workq_job job;
};

static void recovery_free(struct recovery *rec)
{
    task_unref(rec->task);
    free(rec);
}

/* The container was never made, or is deleted already: nothing is to be reported. */
static void discard_run(struct workq_job *job)
{
    struct recovery *rec = container_of(job, struct recovery, job);
    struct task *task = rec->task;
    struct tasks *t = task->tasks;
    struct task_exit exit;
    struct err e = ERR_INIT;

    log_info("task %s was being made or removed when the daemon ended: removing it", task->key);
    if (rec->shim) {
        shim_shutdown(t, rec->shim, task->ns, task->id);
        shim_unref(rec->shim);
    }
    if (shim_run_delete(&t->options.host, task->binary.path, &task->bundle, &exit, &e) < 0)
        log_warn("clean up after task %s: %s", task->key, e.msg);
    if (bundle_remove(&task->bundle, &e) < 0)
        log_warn("remove bundle of task %s: %s", task->key, e.msg);
    tasks_remove(t, task);
    loop_run(t->loop, (void (*)(void *))task_unpark, task);
    recovery_free(rec);
}

static void make_live(struct recovery *rec)
{
    struct task *task = rec->task;

    pthread_mutex_lock(&task->tasks->lock);
    task->shim = rec->shim;
    task->state = atomic_load(&rec->shim->dead) ? TASK_LOST : TASK_LIVE;
    bool lost = task->state == TASK_LOST;
    pthread_mutex_unlock(&task->tasks->lock);
    if (lost)
        task_cleanup_start(task);
    else
        task_unpark(task);
    recovery_free(rec);
}

static void recovery_lost(struct recovery *rec)
{
    shim_unref(rec->shim);
    tasks_set_state(rec->task->tasks, rec->task, TASK_LOST);
    task_cleanup_start(rec->task);
    recovery_free(rec);
}

static void recovery_discard(struct recovery *rec)
{
    if (workq_submit(rec->task->tasks->pool, &rec->job, discard_run) < 0) {
        log_error("no thread to clean up after task %s", rec->task->key);
        make_live(rec);
    }
}

static void recovery_ask(struct recovery *rec);

static void recovery_again(struct event_timer *timer)
{
    recovery_ask(container_of(timer, struct recovery, timer));
}

/* The shim knows no process of the container yet: is there a container at all? */
static void recovery_state(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct recovery *rec = userdata;
    bool has_process = reply && ((Pb__Task__StateResponse *)reply)->pid != 0;

    if (reply)
        pb_free(reply);
    if (e && e->code == ERR_UNAVAILABLE)
        recovery_lost(rec);
    else if (e)
        recovery_discard(rec);
    else if (has_process || clock_monotonic_ms() - rec->since_ms > POLL_MAX_MS)
        make_live(rec);
    else
        event_timer_arm(rec->task->tasks->loop, &rec->timer, POLL_MS, recovery_again);
}

static void recovery_connected(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct recovery *rec = userdata;
    struct tasks *t = rec->task->tasks;
    Pb__Task__ConnectResponse *response = (Pb__Task__ConnectResponse *)reply;

    if (e && e->code == ERR_UNAVAILABLE) {
        log_warn("shim of task %s is gone: %s", rec->task->key, e->msg);
        recovery_lost(rec);
        return;
    }
    if (e && e->code != ERR_NOT_FOUND) {
        log_warn("shim of task %s does not answer: %s", rec->task->key, e->msg);
        make_live(rec);
        return;
    }
    if (response)
        shim_adopt(rec->shim, (pid_t)response->shim_pid);
    bool has_process = response && response->task_pid != 0;
    if (reply)
        pb_free(reply);
    if (has_process)
        make_live(rec);
    else
        shim_call(rec->shim, rec->task->ns, "State", &rec->state.base,
                  &pb__task__state_response__descriptor, t->options.host.load_timeout_ms,
                  recovery_state, rec);
}

static void recovery_ask(struct recovery *rec)
{
    shim_call(rec->shim, rec->task->ns, "Connect", &rec->connect.base,
              &pb__task__connect_response__descriptor,
              rec->task->tasks->options.host.load_timeout_ms, recovery_connected, rec);
}

/* Where the shim of a bundle listens; without a file that says so (the daemon died in between), where ours
 * would. */
static int find_endpoint(struct tasks *t, struct task *task, struct shim_endpoint *ret, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {0};
    _free_ char *spec = NULL;
    size_t len = 0;

    ret->version = 2;
    if (bundle_read_bootstrap(&task->bundle, &ret->address, &ret->version, e) >= 0)
        return 0;
    const char *group = task->id;
    if (fs_read_file(task->bundle.dir_fd, "config.json", OCI_CONFIG_MAX, &spec, &len) >= 0 &&
        oci_config_parse(spec, len, &config, e) >= 0 && !str_empty(config.group))
        group = config.group;
    err_clear(e);
    ret->address = shim_socket_address(&t->options.host, task->ns, group);
    return ret->address ? 0 : err_oom(e);
}

static int load_task(struct tasks *t, struct task *task, struct err *e)
{
    int r = bundle_load(t->options.root, t->options.state, BUNDLE_V2, task->ns, task->id,
                        &task->bundle, e);
    if (r < 0)
        return r;
    task->binary.path = bundle_read_shim_binary(&task->bundle);
    if (!task->binary.path) {
        /* Not even the intent was written: no shim was started. */
        task->binary.path = strdup(t->options.own_shim);
        if (!task->binary.path)
            return err_oom(e);
    }
    task->binary.is_ours = str_eq(task->binary.path, t->options.own_shim);
    task->log = shim_log_open(t->loop, &task->bundle);
    /* It ran before we did: its end is news. */
    atomic_store(&task->start_seen, true);
    task->state = TASK_RECOVERING;
    return 0;
}

static void recover_one(void *userdata, const char *ns, const char *id)
{
    struct tasks *t = userdata;
    struct err e = ERR_INIT;
    _cleanup_(shim_endpoint_done) struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;
    struct recovery *rec = calloc(1, sizeof(*rec));
    struct task *task = rec ? task_new(t, ns, id) : NULL;

    if (!task || load_task(t, task, &e) < 0 || tasks_add(t, task, &e) < 0) {
        log_error("recover task %s/%s: %s", ns, id, task ? e.msg : "out of memory");
        task_unref(task);
        free(rec);
        return;
    }
    rec->task = task;
    pb__task__connect_request__init(&rec->connect);
    pb__task__state_request__init(&rec->state);
    rec->connect.id = rec->state.id = task->id;
    rec->since_ms = clock_monotonic_ms();
    if (find_endpoint(t, task, &endpoint, &e) < 0 ||
        tasks_connect(t, &endpoint, &rec->shim, &e) < 0) {
        log_warn("recover task %s: %s", task->key, e.msg);
        shim_socket_remove(t, endpoint.address);
        recovery_lost(rec);
        return;
    }
    recovery_ask(rec);
}

int tasks_recover(struct tasks *t, struct err *e)
{
    int r = bundle_walk(t->options.state, BUNDLE_V2, recover_one, t, e);
    if (r >= 0)
        bundle_sweep_work(t->options.root, t->options.state, BUNDLE_V2);
    return r;
}

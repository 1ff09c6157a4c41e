/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How tasks end: deleted by a client, or cleaned up after a shim that died.
 */
#include <fcntl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "oci/exit_record.h"
#include "runtime/linux_cgroup.h"
#include "runtime/linux_end.h"
#include "runtime/shim_find.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

/* Longer than the shim waits for stdio, the runtime and the unmount together. */
#define DELETE_TIMEOUT_MS 30000
#define STATUS_UNKNOWN 255
#define KILL_TIMEOUT_MS 5000

void shim_socket_remove(const struct tasks *t, const char *address)
{
    const char *path = address ? str_after_prefix(address, "unix://") : NULL;
    const char *name = path ? str_after_prefix(path, t->options.host.socket_dir) : NULL;

    if (name && name[0] == '/' && !strchr(name + 1, '/'))
        shim_socket_remove_dead(path);
}

void task_remove_socket(struct task *task)
{
    _cleanup_(shim_endpoint_done) struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;

    if (!task->binary.is_ours && !task->is_linux) {
        /* Shims of 2.x have a second socket, and nobody who removes it when they are killed. */
        _free_ char *debug = task_group_address(task, "/debug");
        shim_socket_remove(task->tasks, debug);
    }
    if (task->shim)
        shim_socket_remove(task->tasks, task->shim->address);
    else if (task_find_endpoint(task, &endpoint, NULL) >= 0)
        shim_socket_remove(task->tasks, endpoint.address);
}

static void shim_shutdown(struct tasks *t, struct shim *shim, const char *ns, const char *id)
{
    Pb__Task__ShutdownRequest request = PB__TASK__SHUTDOWN_REQUEST__INIT;
    struct err e = ERR_INIT;

    request.id = (char *)id;
    if (shim_call_sync(shim, ns, "Shutdown", &request.base, &google__protobuf__empty__descriptor,
                       t->options.shutdown_timeout_ms, NULL, &e) < 0 &&
        e.code != ERR_UNAVAILABLE)
        log_warn("shut down shim of task %s/%s: %s", ns, id, e.msg);
}

static void look_run(void *arg)
{
    linux_cgroup_look(arg);
}

static void unwatch_run(void *arg)
{
    linux_cgroup_unwatch(arg);
}

void task_end_shim(struct task *task, struct shim *shim)
{
    if (task->group)
        loop_run(task->tasks->loop, unwatch_run, task->group);
    if (task->is_linux)
        linux_kill_shim(shim, &task->bundle);
    else if (shim)
        shim_shutdown(task->tasks, shim, task->ns, task->id);
    if (task->is_linux && shim)
        shim_socket_remove(task->tasks, shim->address);
}

int task_clean_up(struct task *task, struct task_exit *ret, struct err *e)
{
    const struct shim_host *host = &task->tasks->options.host;
    int r = fs_exists(AT_FDCWD, task->bundle.path) ? 0 : bundle_revive(&task->bundle, e);

    if (r < 0)
        return r;
    if (task->is_linux)
        return linux_clean_up(&task->bundle, host->cleanup_timeout_ms, ret, e);
    r = shim_run_delete(host, task->binary.path, &task->bundle, ret, e);
    if (r >= 0 || task->binary.is_ours)
        return r;
    /* What shims of runc leave in a bundle is what ours finds its way by. */
    log_warn("clean up after task %s: %s", task->key, e ? e->msg : "");
    err_clear(e);
    return shim_run_delete(host, task->tasks->options.own_shim, &task->bundle, ret, e);
}

void task_remove_bundle(struct task *task, bool is_clean)
{
    struct err e = ERR_INIT;

    if (task->is_linux && !is_clean && task->tasks->options.linux_v1.shim_debug) {
        log_warn("task %s: bundle %s is kept, since the cleanup failed and shim_debug is set",
                 task->key, task->bundle.path);
        /* The end is told now, and of a task without a pid the next daemon tells nothing. */
        unlinkat(task->bundle.dir_fd, "init.pid", 0);
        return;
    }
    if (bundle_remove(&task->bundle, &e) < 0)
        log_warn("remove bundle of task %s: %s", task->key, e.msg);
}

static void settle_run(void *arg)
{
}

static void publish_end(struct tasks *t, struct task *task, const struct task_exit *exit)
{
    struct err e = ERR_INIT;
    Google__Protobuf__Timestamp *at = pb_timestamp_new(exit->at);
    Pb__Event__TaskExit exited = PB__EVENT__TASK_EXIT__INIT;
    Pb__Event__TaskDelete deleted = PB__EVENT__TASK_DELETE__INIT;

    exited.container_id = deleted.container_id = task->id;
    exited.id = task->id;
    exited.pid = deleted.pid = exit->pid;
    exited.exit_status = deleted.exit_status = exit->status;
    exited.exited_at = deleted.exited_at = at;
    bool is_news =
        task->is_linux ? task_events_claim_exit(task, exit->pid) : !atomic_load(&task->exit_seen);
    /* One that is held back for a last look is let go by the loop before the end is told. */
    if (task->is_linux && !is_news)
        loop_run(t->loop, settle_run, NULL);
    if (atomic_load(&task->start_seen) && is_news &&
        exchange_publish(t->exchange, task->ns, "/tasks/exit", &exited.base, &e) < 0)
        log_warn("publish exit of task %s: %s", task->key, e.msg);
    if (exchange_publish(t->exchange, task->ns, "/tasks/delete", &deleted.base, &e) < 0)
        log_warn("publish end of task %s: %s", task->key, e.msg);
    if (at)
        pb_free(&at->base);
}

static bool begin_delete(struct tasks *t, struct task *task)
{
    pthread_mutex_lock(&t->lock);
    bool ok = task->state == TASK_LIVE && !task->deleting;
    if (ok)
        task->deleting = true;
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* The delete failed: the task stays; if its shim died meanwhile it is lost now. */
static void cancel_delete(struct tasks *t, struct task *task)
{
    pthread_mutex_lock(&t->lock);
    task->deleting = false;
    bool lost = task->state == TASK_LIVE && atomic_load(&task->shim->dead);
    if (lost)
        task->state = TASK_LOST;
    pthread_mutex_unlock(&t->lock);
    if (lost)
        task_cleanup_start(task);
}

/* How a shim of runtime v1 says that it has no container. */
static bool is_unmade(const struct task *task, const struct err *e)
{
    return task->is_linux && e->code == ERR_FAILED_PRECONDITION &&
           strstr(e->msg, "container must be created");
}

int tasks_delete(struct tasks *t, struct task *task, struct task_exit *ret, struct err *e)
{
    Pb__Task__DeleteRequest request = PB__TASK__DELETE_REQUEST__INIT;
    ProtobufCMessage *message = NULL;

    if (!begin_delete(t, task))
        return err_set(e, ERR_NOT_FOUND, "task %s not found", task->id);
    request.id = task->id;
    /* The counters go with the container. */
    if (task->group)
        loop_run(t->loop, look_run, task->group);
    int r = shim_call_sync(task->shim, task->ns, "Delete", &request.base,
                           &pb__task__delete_response__descriptor, DELETE_TIMEOUT_MS, &message, e);
    if (r < 0 && e->code != ERR_NOT_FOUND && !is_unmade(task, e)) {
        cancel_delete(t, task);
        return r;
    }
    /* The shim does not know it: it was deleted before, by a daemon that died before it could say
     * so. */
    *ret = (struct task_exit){.status = STATUS_UNKNOWN, .at = clock_realtime()};
    if (r >= 0) {
        Pb__Task__DeleteResponse *response = (Pb__Task__DeleteResponse *)message;
        *ret = (struct task_exit){response->pid, response->exit_status,
                                  pb_timestamp_get(response->exited_at)};
        pb_free(message);
    }
    /* Its end has been told by now. A daemon that finds the rest tells nothing of a task without a
     * pid. */
    unlinkat(task->bundle.dir_fd, "init.pid", 0);
    task_end_shim(task, task->shim);

    /* Our shim, and one of v1, has cleaned up when it says so; of others the `delete` action is
     * expected. */
    struct task_exit again;
    struct err warn = ERR_INIT;
    bool is_clean = task->binary.is_ours || (task->is_linux && r >= 0);
    if (!is_clean && task_clean_up(task, &again, &warn) < 0)
        log_warn("clean up after task %s: %s", task->key, warn.msg);
    task_remove_bundle(task, true);
    if (tasks_remove(t, task) && task->is_linux)
        publish_end(t, task, ret);
    return 0;
}

struct deleted_check {
    struct task *task; /* a reference */
    struct workq_job job;
};

/* The event may also be a late one of a task that had the name before. */
static void deleted_check_run(struct workq_job *job)
{
    struct deleted_check *check = container_of(job, struct deleted_check, job);
    struct task *task = check->task;
    Pb__Task__StateRequest request = PB__TASK__STATE_REQUEST__INIT;
    struct shim *shim = tasks_live_shim(task->tasks, task);
    struct task_exit exit;
    struct err e = ERR_INIT;

    request.id = task->id;
    if (shim &&
        shim_call_sync(shim, task->ns, "State", &request.base,
                       &pb__task__state_response__descriptor,
                       task->tasks->options.host.load_timeout_ms, NULL, &e) < 0 &&
        e.code == ERR_NOT_FOUND) {
        log_info("task %s was being removed when a daemon ended: removing the rest", task->key);
        if (tasks_delete(task->tasks, task, &exit, &e) < 0 && e.code != ERR_NOT_FOUND)
            log_warn("remove task %s: %s", task->key, e.msg);
    }
    shim_unref(shim);
    task_unref(task);
    free(check);
}

void task_check_deleted(struct task *task)
{
    struct tasks *t = task->tasks;

    pthread_mutex_lock(&t->lock);
    bool is_expected = task->state != TASK_LIVE || task->deleting;
    pthread_mutex_unlock(&t->lock);
    struct deleted_check *check = is_expected ? NULL : calloc(1, sizeof(*check));
    if (!check)
        return;
    check->task = task_ref(task);
    /* Refused when the daemon ends, and then the next one finds it so. */
    if (workq_submit(t->pool, &check->job, deleted_check_run) < 0) {
        task_unref(task);
        free(check);
    }
}

/* A shim that could not be reached may be alive all the same, and would be for ever. */
void task_kill_unreachable(struct task *task)
{
    _cleanup_(proc_done) struct proc proc = PROC_NULL;

    if (task->is_linux) {
        linux_kill_shim(task->shim, &task->bundle);
        return;
    }
    if ((task->shim && shim_kill(task->shim, KILL_TIMEOUT_MS) >= 0) ||
        shim_find(task->tasks->options.host.grpc_address, task->ns, task->id, &proc) < 0)
        return;
    log_warn("shim %d of task %s cannot be reached: killing it", (int)proc.pid, task->key);
    if (proc_kill(&proc, SIGKILL) >= 0 && proc_wait_end(&proc, KILL_TIMEOUT_MS) != 1)
        log_warn("shim %d of task %s does not end", (int)proc.pid, task->key);
}

/* What is known of the end of a task whose shim is gone: its own record, else what `delete` says.
 * False when the cleanup failed. */
static bool find_exit(struct tasks *t, struct task *task, struct task_exit *ret)
{
    struct err e = ERR_INIT;
    struct exit_record record;

    *ret = (struct task_exit){.status = STATUS_UNKNOWN, .at = clock_realtime()};
    /* The connection may have gone before the process. */
    if (task->is_linux)
        task_end_shim(task, task->shim);
    else
        task_kill_unreachable(task);
    int r = task_clean_up(task, ret, &e);
    if (r < 0)
        log_warn("clean up after task %s: %s", task->key, e.msg);
    if (exit_record_read(task->bundle.path, NULL, &record) >= 0)
        *ret = (struct task_exit){(uint32_t)record.pid, record.status, record.at};
    return r >= 0;
}

struct lost_answer {
    struct task *task;
    const struct task_exit *exit;
};

static void answer_lost(void *arg)
{
    struct lost_answer *answer = arg;

    task_unpark(answer->task);
    task_answer_waiters(answer->task, answer->exit);
}

static void cleanup_run(struct workq_job *job)
{
    struct task *task = container_of(job, struct task, job);
    struct tasks *t = task->tasks;
    struct task_exit exit;

    bool is_clean = find_exit(t, task, &exit);
    task_remove_socket(task);
    task_remove_bundle(task, is_clean);
    if (tasks_remove(t, task))
        publish_end(t, task, &exit);
    struct lost_answer answer = {task, &exit};
    loop_run(t->loop, answer_lost, &answer);
    task_unref(task);
}

void task_cleanup_start(struct task *task)
{
    task_ref(task);
    if (workq_submit(task->tasks->pool, &task->job, cleanup_run) < 0) {
        log_error("no thread to clean up after task %s: it is done at the next start", task->key);
        task_unref(task);
    }
}

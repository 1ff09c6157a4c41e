/* SPDX-License-Identifier: Apache-2.0 */
/* Kill and Delete. */
#include <malloc.h>
#include <stdio.h>

#include "base/str.h"
#include "events.pb-c.h"
#include "oci/exit_record.h"
#include "shim/container.h"
#include "shim/container_end.h"
#include "shim/topics.h"
#include "wire/pb.h"

#define DELETE_TRIES 50
#define DELETE_RETRY_MS 100

/* Delete. */

static void on_released(struct op *op)
{
    struct process *p = op->process;
    Pb__Event__TaskDelete event = PB__EVENT__TASK_DELETE__INIT;

    event.container_id = p->container->id;
    event.pid = (uint32_t)p->exit.pid;
    event.exit_status = (uint32_t)p->exit.status;
    event.exited_at = pb_timestamp_new(p->exit.at);
    container_publish(p->container, TOPIC_DELETE, &event.base);
    pb_free(event.exited_at ? &event.exited_at->base : NULL);
    op_end(op, NULL);
    malloc_trim(0);
}

static void delete_join(struct op *op)
{
    struct process *p = op->process;
    struct container *c = p->container;

    if (!op->runtime_done || !op->stdio_done)
        return;
    if (op->error.code != ERR_OK) {
        op_end(op, &op->error);
        return;
    }
    *op->ret_exit = p->exit;
    p->state = PROCESS_DELETED;
    if (process_is_init(p)) {
        container_release(c, op, on_released);
        return;
    }
    _free_ char *pid_file = str_printf("%s/%s.pid", c->bundle, p->exec_id);
    if (pid_file)
        unlink(pid_file);
    exit_record_remove(c->bundle, p->exec_id);
    container_remove_exec(c, p);
    op_end(op, NULL);
}

static void on_finished(struct stdio *io)
{
    struct op *op = container_of(io, struct process, io)->current;

    op->stdio_done = true;
    delete_join(op);
}

/* The runtime has let go of it, and init's end has been told. */
static void finish_delete(struct op *op)
{
    op->stdio_begun = true;
    stdio_finish(&op->process->io, on_finished);
}

static bool is_gone(const char *text)
{
    return strstr(text, "does not exist") || strstr(text, "No such file or directory") ||
           strstr(text, "no such file or directory");
}

static void call_delete(struct op *op);

static void on_delete_retry(struct event_timer *timer)
{
    call_delete(container_of(timer, struct op, timer));
}

static void on_deleted(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct process *p = op->process;

    if (e && runtime_is_missing(e)) {
        container_delete_state(p->container);
        e = NULL;
    }
    /* Of crun that may also be said of init's pid, when a thread has it by now. */
    if (!e || is_gone(e->msg))
        container_remove_state(p->container);
    /* Where it knows nothing of the container its groups are left. */
    if (e ? is_gone(e->msg) : child_is_alive(&p->child))
        p->container->lost_runtime = true;
    if (e && (strstr(e->msg, "busy") || strstr(e->msg, "Busy")) && op->tries++ < DELETE_TRIES) {
        container_unmount_state(p->container);
        event_timer_arm(p->container->shim->loop, &op->timer, DELETE_RETRY_MS, on_delete_retry);
        return;
    }
    if (e && !is_gone(e->msg))
        err_set(&op->error, e->code, "failed to delete task: %s", e->msg);
    op->runtime_done = true;
    if (op->stdio_begun) {
        delete_join(op);
    } else if (op->error.code == ERR_OK && p->state == PROCESS_STOPPED) {
        finish_delete(op); /* the runtime ended it, and that has been told meanwhile */
    } else if (op->error.code != ERR_OK) {
        op->stdio_done = true; /* it stays, and so do its streams */
        delete_join(op);
    } else if (child_is_alive(&p->child)) {
        proc_kill(&p->child.proc, SIGKILL);
        op->launched = finish_delete;
        p->waits_for_end = op;
    } else if (p->has_ended) {
        op->launched = finish_delete;
        p->waits_for_end = op;
        process_tell_end(p);
    } else {
        finish_delete(op); /* a checkpoint that was not restored */
    }
}

static void call_delete(struct op *op)
{
    container_call_delete(op, op->process->state == PROCESS_CREATED, on_deleted);
}

static void delete_begin(struct op *op)
{
    struct process *p = op->process;

    if (p->state != PROCESS_CREATED && p->state != PROCESS_STOPPED) {
        process_refuse(p, "delete", &op->error);
        op_end(op, &op->error);
    } else if (!process_is_init(p)) {
        op->runtime_done = true;
        finish_delete(op);
    } else if (p->state == PROCESS_CREATED) {
        call_delete(op);
    } else {
        /* Side by side: mostly the output has ended long before. */
        process_ref(p);
        call_delete(op);
        if (p->current == op)
            finish_delete(op);
        process_unref(p);
    }
}

void process_delete(struct process *p, struct process_exit *ret_exit, done_fn done, void *userdata)
{
    struct op *op = op_new(p, true, delete_begin, done, userdata);

    if (!op)
        return;
    op->ret_exit = ret_exit;
    op_submit(op);
}

/* Kill. */

/* A runtime that is missing, or has lost what it kept of the container, cannot reach what runs. */
static bool kill_without_runtime(const struct op *op, const struct err *e)
{
    struct process *p = op->process;

    if (!runtime_is_missing(e) && !(is_gone(e->msg) && child_is_alive(&p->child)))
        return false;
    if (op->signal == SIGKILL)
        return container_kill_all(p->container);
    return child_is_alive(&p->child) && proc_kill(&p->child.proc, op->signal) == 0;
}

static void on_killed(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct container *c = op->process->container;

    if (e && kill_without_runtime(op, e))
        e = NULL;
    if (!e) {
        /* Of a paused container the signal would wait until it goes on: crun leaves it at that. */
        if (op->signal == SIGKILL) {
            c->is_killed = true;
            cgroup_let_end(&c->cgroup);
        }
        op_end(op, NULL);
        return;
    }
    if (strcasestr(e->msg, "os: process already finished") ||
        strcasestr(e->msg, "container not running") || strcasestr(e->msg, "no such process"))
        err_set(&op->error, ERR_NOT_FOUND, "process already finished: not found");
    else if (is_gone(e->msg))
        err_set(&op->error, ERR_NOT_FOUND, "no such container: not found");
    else
        err_set(&op->error, e->code, "unknown error after kill: %s", e->msg);
    op_end(op, &op->error);
}

static void kill_init(struct op *op)
{
    struct container *c = op->process->container;
    struct runtime_args args = {};
    char number[16];

    snprintf(number, sizeof(number), "%d", op->signal);
    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "kill");
    if (op->all)
        runtime_args_add(&args, "--all");
    runtime_args_add(&args, c->id);
    runtime_args_add(&args, number);
    op_call(op,
            &(struct runtime_request){
                .command = "kill",
                .args = &args,
                .timeout_ms = PROCESS_CALL_TIMEOUT_MS,
            },
            on_killed);
}

static void kill_begin(struct op *op)
{
    struct process *p = op->process;
    struct err *e = &op->error;
    bool ended = p->has_ended || p->state == PROCESS_STOPPED;

    if (op->signal < 0 || op->signal >= NSIG) {
        err_set(e, ERR_INVALID_ARGUMENT, "signal %d does not exist: invalid argument", op->signal);
    } else if (p->state == PROCESS_DELETED) {
        process_refuse(p, "kill", e);
    } else if (p->exit.pid == 0) {
        err_set(e, ERR_FAILED_PRECONDITION, "process not created: failed precondition");
    } else if (process_is_init(p) && !(ended && !op->all)) {
        kill_init(op);
        return;
    } else if (ended || proc_kill(&p->child.proc, op->signal) < 0) {
        err_set(e, ERR_NOT_FOUND, "process already finished: not found");
    }
    op_end(op, e->code == ERR_OK ? NULL : e);
}

void process_kill(struct process *p, int signal, bool all, done_fn done, void *userdata)
{
    struct op *op = op_new(p, false, kill_begin, done, userdata);

    if (!op)
        return;
    op->signal = signal;
    op->all = all;
    op_submit(op);
}

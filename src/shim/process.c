/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/process.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "oci/exit_record.h"
#include "shim/container.h"
#include "shim/topics.h"
#include "wire/pb.h"

#define PID_FILE_MAX 32
#define QUEUE_MAX 256

struct process *process_new(struct container *c, const char *exec_id)
{
    _free_ char *id = NULL;

    if (exec_id && !(id = strdup(exec_id)))
        return NULL;
    struct process *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    *p = (struct process){
        .refs = 1,
        .container = container_ref(c),
        .exec_id = TAKE(id),
        .state = exec_id ? PROCESS_CREATED : PROCESS_CREATING,
        .child = CHILD_INIT,
    };
    stdio_init(&p->io, c->shim->reaper);
    list_init(&p->queue);
    list_init(&p->waiters);
    return p;
}

int process_set_streams(struct process *p, bool terminal, const char *stdin_path,
                        const char *stdout_path, const char *stderr_path)
{
    p->terminal = terminal;
    if (str_dup_given(stdin_path, &p->stdin_path) < 0 ||
        str_dup_given(stdout_path, &p->stdout_path) < 0 ||
        str_dup_given(stderr_path, &p->stderr_path) < 0)
        return -ENOMEM;
    return 0;
}

struct process *process_ref(struct process *p)
{
    p->refs++;
    return p;
}

void process_wake_waiters(struct process *p)
{
    for (struct list *l; (l = list_pop_front(&p->waiters));) {
        struct process_waiter *w = container_of(l, struct process_waiter, link);
        p->n_waiters--;
        w->fn(w->userdata, &p->exit);
        free(w);
    }
}

struct process *process_unref(struct process *p)
{
    if (!p || --p->refs > 0)
        return NULL;
    process_wake_waiters(p);
    reaper_forget(&p->child);
    output_hold_done(&p->hold);
    stdio_done(&p->io);
    free(p->exec_id);
    free(p->stdin_path);
    free(p->stdout_path);
    free(p->stderr_path);
    free(p->spec);
    container_unref(p->container);
    free(p);
    return NULL;
}

const char *process_id(const struct process *p)
{
    return p->exec_id ? p->exec_id : p->container->id;
}

int process_wait(struct process *p, void (*fn)(void *userdata, const struct process_exit *exit),
                 void *userdata, struct err *e)
{
    if (p->state == PROCESS_STOPPED || p->state == PROCESS_DELETED || p->start_failed) {
        fn(userdata, &p->exit);
        return 0;
    }
    if (p->n_waiters >= PROCESS_WAITERS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d calls wait for process %s already",
                       PROCESS_WAITERS_MAX, process_id(p));
    struct process_waiter *w = malloc(sizeof(*w));
    if (!w)
        return err_oom(e);
    *w = (struct process_waiter){.fn = fn, .userdata = userdata};
    list_push_back(&p->waiters, &w->link);
    p->n_waiters++;
    return 0;
}

struct op *op_new(struct process *p, bool queued, op_fn begin, done_fn done, void *userdata)
{
    struct op *op = calloc(1, sizeof(*op));
    struct err e = ERR_INIT;

    if (!op) {
        err_oom(&e);
        done(userdata, &e);
        return NULL;
    }
    op->process = process_ref(p);
    p->container->n_ops++;
    op->queued = queued;
    op->begin = begin;
    op->done = done;
    op->userdata = userdata;
    list_init(&op->link);
    return op;
}

void op_submit(struct op *op)
{
    struct process *p = op->process;
    struct list *l;
    size_t n = 0;

    if (!op->queued || !p->current) {
        if (op->queued)
            p->current = op;
        op->begin(op);
        return;
    }
    for (l = p->queue.next; l != &p->queue; l = l->next)
        n++;
    if (n >= QUEUE_MAX) {
        op->queued = false;
        err_set(&op->error, ERR_RESOURCE_EXHAUSTED,
                "more than %d operations wait for process %s already", QUEUE_MAX, process_id(p));
        op_end(op, &op->error);
        return;
    }
    list_push_back(&p->queue, &op->link);
}

void op_end(struct op *op, const struct err *e)
{
    struct process *p = op->process;
    bool queued = op->queued;

    event_timer_disarm(&op->timer);
    op->done(op->userdata, e);
    free(op->text);
    free(op->spec_path);
    free(op);
    if (queued) {
        struct list *l = list_pop_front(&p->queue);
        p->current = l ? container_of(l, struct op, link) : NULL;
        if (p->current)
            p->current->begin(p->current);
    }
    struct container *c = p->container;
    if (--c->n_ops == 0 && c->shim->idle)
        c->shim->idle(c->shim);
    process_unref(p);
}

void op_call(struct op *op, const struct runtime_request *request, runtime_call_fn fn)
{
    struct container *c = op->process->container;
    struct err e = ERR_INIT;

    if (runtime_call_new(c->shim->reaper, &c->runtime, request, fn, op, &op->call, &e) < 0)
        fn(op, &e, "");
}

void op_call_while_alive(struct op *op, const struct runtime_request *request, uint32_t grace_ms,
                         runtime_call_fn fn)
{
    struct process *p = op->process;
    struct container *c = p->container;
    struct err e = ERR_INIT;

    p->call_grace_ms = grace_ms;
    if (runtime_call_new(c->shim->reaper, &c->runtime, request, fn, op, &p->call, &e) < 0)
        fn(op, &e, "");
    else if (p->has_ended)
        runtime_call_hurry(p->call, grace_ms);
}

static const char *state_word(enum process_state state)
{
    switch (state) {
    case PROCESS_CREATING:
    case PROCESS_CREATED:
        return "created";
    case PROCESS_RUNNING:
        return "running";
    case PROCESS_PAUSING:
    case PROCESS_PAUSED:
        return "paused";
    case PROCESS_STOPPED:
        return "stopped";
    case PROCESS_DELETED:
        return "deleted";
    }
    return "unknown";
}

int process_refuse(const struct process *p, const char *verb, struct err *e)
{
    const char *state = state_word(p->state);
    bool is_created = p->state == PROCESS_CREATING || p->state == PROCESS_CREATED;

    if (p->state == PROCESS_DELETED) {
        bool is_lookup = str_eq(verb, "delete") || str_eq(verb, "kill");
        return err_set(e, is_lookup ? ERR_NOT_FOUND : ERR_UNKNOWN, "cannot %s a deleted process%s",
                       verb, is_lookup ? ": not found" : "");
    }
    if (str_eq(verb, "start") || str_eq(verb, "delete"))
        return err_set(e, ERR_UNKNOWN, "cannot %s a %s process", verb, state);
    if (str_eq(verb, "exec"))
        return err_set(e, ERR_UNKNOWN, "cannot exec in a %s state", state);
    if (str_eq(verb, "checkpoint") && is_created)
        return err_set(e, ERR_UNKNOWN, "cannot checkpoint a task in created state");
    if (is_created)
        return err_set(e, ERR_UNKNOWN, "cannot %s task in created state", verb);
    if (str_eq(verb, "resume") && p->state == PROCESS_RUNNING)
        return err_set(e, ERR_UNKNOWN, "cannot resume a running process");
    return err_set(e, ERR_UNKNOWN, "cannot %s a %s container", verb, state);
}

void process_publish_end(struct process *p)
{
    struct container *c = p->container;
    const struct exit_record record = {
        .pid = p->exit.pid, .status = (uint32_t)p->exit.status, .at = p->exit.at};
    Pb__Event__TaskExit event = PB__EVENT__TASK_EXIT__INIT;

    p->state = PROCESS_STOPPED;
    int r = exit_record_write(c->bundle, p->exec_id, &record);
    if (r < 0)
        log_warn("failed to record the exit of process %s: %s", process_id(p), err_strerror(r));

    event.container_id = c->id;
    event.id = (char *)process_id(p);
    event.pid = (uint32_t)p->exit.pid;
    event.exit_status = (uint32_t)p->exit.status;
    event.exited_at = pb_timestamp_new(p->exit.at);
    c->shim->publish(c->shim, TOPIC_EXIT, &event.base);
    pb_free(event.exited_at ? &event.exited_at->base : NULL);

    process_wake_waiters(p);
    struct op *op = p->waits_for_end;
    p->waits_for_end = NULL;
    if (op)
        op->launched(op);
}

static void on_hold(struct output_hold *h)
{
    process_tell_end(container_of(h, struct process, hold));
}

bool process_is_held(struct process *p)
{
    return output_hold(&p->hold, &p->io, on_hold);
}

void process_tell_end(struct process *p)
{
    struct container *c = p->container;

    if (!p->has_ended || p->is_launching || p->state == PROCESS_STOPPED ||
        p->state == PROCESS_DELETED)
        return;
    if (process_is_init(p)) {
        container_init_ended(c);
    } else if (!process_is_held(p)) {
        process_ref(p);
        oom_check(&c->oom);
        process_publish_end(p);
        container_exec_ended(c);
        process_unref(p);
    }
}

static void on_end(struct child *child, int status)
{
    struct process *p = container_of(child, struct process, child);

    p->has_ended = true;
    p->exit.status = status;
    p->exit.at = clock_realtime();
    stdio_end_input(&p->io);
    if (p->call)
        runtime_call_hurry(p->call, p->call_grace_ms);
    process_tell_end(p);
}

int process_adopt(struct process *p, const char *pid_file, struct err *e)
{
    _cleanup_(proc_done) struct proc proc = PROC_NULL;
    struct reaper *reaper = p->container->shim->reaper;
    _free_ char *text = NULL;
    uint32_t pid;
    size_t n;

    int r = fs_read_file(AT_FDCWD, pid_file, PID_FILE_MAX, &text, &n);
    if (r < 0)
        return err_errno(e, r, "failed to retrieve OCI runtime container pid from %s", pid_file);
    text[strcspn(text, "\n")] = '\0';
    if (str_to_u32(text, &pid) < 0 || pid < 2 || pid > INT32_MAX)
        return err_set(e, ERR_UNKNOWN, "the OCI runtime left no process id in %s", pid_file);
    r = reaper_adopt(reaper, (pid_t)pid, &proc);
    if (r < 0)
        return err_set(e, ERR_UNKNOWN,
                       "the OCI runtime left process id %u in %s, which is no process it can have "
                       "started",
                       pid, pid_file);
    p->exit.pid = (pid_t)pid;
    r = reaper_watch(reaper, &p->child, &proc, on_end);
    return r < 0 ? err_errno(e, r, "failed to watch process %u", pid) : 0;
}

int process_resize(struct process *p, uint32_t width, uint32_t height, struct err *e)
{
    /* A client follows its window until it hears of init's end: that is no error. */
    if (p->state == PROCESS_STOPPED && process_is_init(p))
        return 0;
    if (p->state == PROCESS_STOPPED)
        return err_set(e, ERR_UNKNOWN, "cannot resize a stopped container");
    if (p->state == PROCESS_DELETED)
        return process_refuse(p, "resize", e);
    int r = stdio_resize(&p->io, width, height);
    return r < 0 ? err_errno(e, r, "failed to resize the terminal of process %s", process_id(p))
                 : 0;
}

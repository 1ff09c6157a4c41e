/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/process.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "oci/exit_record.h"
#include "shim/container.h"
#include "shim/container_end.h"
#include "shim/topics.h"
#include "wire/pb.h"

#define PID_FILE_MAX 32
#define QUEUE_MAX 256
#define SLOW_LAUNCH_MS 1000
#define DELETE_TRIES 50
#define DELETE_RETRY_MS 100
/* What the runtime may take to start a container whose init has ended: it waits for init to open a
 * fifo, and that may never come. */
#define START_GRACE_MS 2000

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

struct process *process_ref(struct process *p)
{
    p->refs++;
    return p;
}

static void wake_waiters(struct process *p)
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
    wake_waiters(p);
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

    wake_waiters(p);
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

static void launch_join(struct op *op)
{
    struct process *p = op->process;

    if (!op->runtime_done || !op->stdio_done)
        return;
    event_timer_disarm(&op->timer);
    if (op->error.code == ERR_OK && stdio_connect(&p->io, &op->error) == 0 &&
        !str_eq(op->command, "create"))
        stdio_connect_input(&p->io, &op->error);
    op->launched(op);
}

static void on_opened(struct stdio *io, const struct err *e)
{
    struct op *op = container_of(io, struct process, io)->current;

    if (e && op->error.code == ERR_OK)
        op->error = *e;
    op->stdio_done = true;
    launch_join(op);
}

static void on_launched(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct process *p = op->process;
    char printed[1024], clean[1024];

    stdio_release_child(&p->io);
    if (!e) {
        struct err why = ERR_INIT;
        if (process_adopt(p, op->text, &why) < 0) {
            runtime_call_kill_rest(op->call);
            if (op->error.code == ERR_OK)
                op->error = why;
        }
    } else if (op->error.code == ERR_OK) {
        /* Without its own output the runtime complains on the container's. */
        size_t n = stdio_take_stderr(&p->io, printed, sizeof(printed));
        runtime_clean_text(printed, n, clean, sizeof(clean));
        bool has_reason = strstr(e->msg, "did not terminate successfully") == NULL;
        if (*clean && !has_reason)
            err_set(&op->error, e->code, "OCI runtime %s failed: %s: %s", op->command, e->msg,
                    clean);
        else
            err_set(&op->error, e->code, "OCI runtime %s failed: %s", op->command, e->msg);
    }
    op->runtime_done = true;
    launch_join(op);
}

/* A runtime that is still at it may be stuck in a full pipe: what it, or a hook, prints goes where
 * the container's output goes. Before this, a short complaint is kept for the error's sentence. */
static void on_launch_is_slow(struct event_timer *timer)
{
    struct op *op = container_of(timer, struct op, timer);
    struct process *p = op->process;

    if (!op->stdio_done)
        event_timer_arm(p->container->shim->loop, timer, SLOW_LAUNCH_MS, on_launch_is_slow);
    else if (!p->terminal && op->error.code == ERR_OK)
        stdio_connect(&p->io, &op->error);
}

void process_launch(struct op *op, const struct process_launch *launch)
{
    struct process *p = op->process;
    struct container *c = p->container;
    struct runtime_args args = {};
    const struct stdio_request request = {
        .stdin_path = p->stdin_path,
        .stdout_path = p->stdout_path,
        .stderr_path = p->stderr_path,
        .terminal = p->terminal,
        .io_uid = c->options.io_uid,
        .io_gid = c->options.io_gid,
        .namespace_ = c->shim->namespace_,
        .id = process_id(p),
        .name = p->exec_id ? p->exec_id : "init",
        .bundle = c->bundle,
    };

    p->is_launching = true;
    op->command = launch->command;
    op->launched = launch->launched;
    free(op->text);
    op->text = strdup(launch->pid_file);
    if (!op->text)
        err_oom(&op->error);
    if (!op->text || stdio_open(&p->io, &request, on_opened, &op->error) < 0) {
        op->launched(op);
        return;
    }
    unlink(launch->pid_file);
    runtime_args_globals(&args, &c->runtime);
    launch->add_args(op, &args, stdio_console_path(&p->io));
    op->runtime_called = true;
    event_timer_arm(c->shim->loop, &op->timer, SLOW_LAUNCH_MS, on_launch_is_slow);
    op_call(op,
            &(struct runtime_request){
                .command = launch->command,
                .args = &args,
                .fds = stdio_child_fds(&p->io),
                .timeout_ms = launch->timeout_ms,
                .leaves_process = true,
            },
            on_launched);
}

/* Start. */

static void on_init_started(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct process *p = process_ref(op->process);
    struct container *c = p->container;
    Pb__Event__TaskStart event = PB__EVENT__TASK_START__INIT;

    p->is_launching = false;
    p->call = NULL;
    if (e) {
        /* Of a process that has ended no time was short. */
        enum err_code code = p->has_ended ? ERR_UNKNOWN : e->code;
        err_set(&op->error, code, "OCI runtime start failed: %s", e->msg);
        op_end(op, &op->error);
    } else {
        p->state = PROCESS_RUNNING;
        event.container_id = c->id;
        event.pid = (uint32_t)p->exit.pid;
        container_publish(c, TOPIC_START, &event.base);
        op_end(op, NULL);
    }
    process_tell_end(p);
    process_unref(p);
}

static void start_init(struct op *op)
{
    struct process *p = op->process;
    struct container *c = p->container;
    struct runtime_args args = {};

    if (stdio_connect_input(&p->io, &op->error) < 0) {
        op_end(op, &op->error);
        return;
    }
    p->is_launching = true;
    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "start");
    runtime_args_add(&args, c->id);
    const struct runtime_request request = {
        .command = "start",
        .args = &args,
        .timeout_ms = PROCESS_LAUNCH_TIMEOUT_MS,
    };
    op_call_while_alive(op, &request, START_GRACE_MS, on_init_started);
}

static char *spec_path(const struct process *p)
{
    return str_printf("%s/exec-%s.json", p->container->bundle, p->exec_id);
}

static void add_exec_args(struct op *op, struct runtime_args *args, const char *console)
{
    struct process *p = op->process;
    struct container *c = p->container;

    runtime_args_add(args, "exec");
    runtime_args_add(args, "--process");
    runtime_args_add(args, op->spec_path);
    if (console) {
        runtime_args_add(args, "--console-socket");
        runtime_args_add(args, console);
    }
    runtime_args_add(args, "--detach");
    runtime_args_add(args, "--pid-file");
    runtime_args_add(args, op->text);
    runtime_args_add(args, c->id);
}

static void on_exec_launched(struct op *op)
{
    struct process *p = process_ref(op->process);
    struct container *c = p->container;
    Pb__Event__TaskExecStarted event = PB__EVENT__TASK_EXEC_STARTED__INIT;

    if (op->spec_path)
        unlink(op->spec_path);
    p->is_launching = false;
    if (op->error.code != ERR_OK) {
        if (child_is_alive(&p->child))
            proc_kill(&p->child.proc, SIGKILL);
        reaper_forget(&p->child);
        stdio_done(&p->io);
        p->exit = (struct process_exit){};
        p->has_ended = false;
        p->start_failed = true;
        wake_waiters(p);
        op_end(op, &op->error);
        container_exec_ended(c);
    } else {
        p->state = PROCESS_RUNNING;
        event.container_id = c->id;
        event.exec_id = p->exec_id;
        event.pid = (uint32_t)p->exit.pid;
        container_publish(c, TOPIC_EXEC_STARTED, &event.base);
        /* One that has come into being after the rest of the container was killed. */
        if (c->init->has_ended && child_is_alive(&p->child))
            proc_kill(&p->child.proc, SIGKILL);
        op_end(op, NULL);
        process_tell_end(p);
    }
    process_unref(p);
    malloc_trim(0);
}

static void start_exec(struct op *op)
{
    struct process *p = op->process;
    struct container *c = p->container;
    _free_ char *pid_file = str_printf("%s/%s.pid", c->bundle, p->exec_id);

    if (c->init->state != PROCESS_RUNNING || c->init->has_ended) {
        err_set(&op->error, ERR_FAILED_PRECONDITION,
                "container %s init process is not running: failed precondition", c->id);
        op_end(op, &op->error);
        return;
    }
    p->start_failed = false;
    op->spec_path = spec_path(p);
    int r = pid_file && op->spec_path ? fs_write_file_atomic(AT_FDCWD, op->spec_path, p->spec,
                                                             strlen(p->spec), 0600, false)
                                      : -ENOMEM;
    if (r < 0) {
        err_errno(&op->error, r, "failed to write the process of exec %s", p->exec_id);
        on_exec_launched(op);
        return;
    }
    process_launch(op, &(struct process_launch){
                           .command = "exec",
                           .pid_file = pid_file,
                           .timeout_ms = PROCESS_LAUNCH_TIMEOUT_MS,
                           .add_args = add_exec_args,
                           .launched = on_exec_launched,
                       });
}

static void start_begin(struct op *op)
{
    struct process *p = op->process;

    if (p->state != PROCESS_CREATED) {
        process_refuse(p, "start", &op->error);
        op_end(op, &op->error);
    } else if (!process_is_init(p)) {
        start_exec(op);
    } else if (p->container->checkpoint) {
        container_restore(op);
    } else {
        start_init(op);
    }
}

void process_start(struct process *p, done_fn done, void *userdata)
{
    struct op *op = op_new(p, true, start_begin, done, userdata);

    if (op)
        op_submit(op);
}

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
    if (e && (strstr(e->msg, "busy") || strstr(e->msg, "Busy")) && op->tries++ < DELETE_TRIES) {
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
    struct container *c = op->process->container;
    struct runtime_args args = {};

    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "delete");
    if (op->process->state == PROCESS_CREATED)
        runtime_args_add(&args, "--force");
    runtime_args_add(&args, c->id);
    op_call(op,
            &(struct runtime_request){
                .command = "delete",
                .args = &args,
                .timeout_ms = PROCESS_CALL_TIMEOUT_MS,
            },
            on_deleted);
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

static void on_killed(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct container *c = op->process->container;

    /* SIGKILL does not need the runtime. */
    if (e && runtime_is_missing(e) && op->signal == SIGKILL && container_kill_all(c))
        e = NULL;
    if (!e) {
        /* Of a paused container the signal would wait until it goes on: crun leaves it at that. */
        if (op->signal == SIGKILL) {
            c->is_killed = true;
            if (process_is_paused(c->init))
                cgroup_thaw(&c->cgroup);
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

int process_resize(struct process *p, uint32_t width, uint32_t height, struct err *e)
{
    if (p->state == PROCESS_STOPPED)
        return err_set(e, ERR_UNKNOWN, "cannot resize a stopped container");
    if (p->state == PROCESS_DELETED)
        return process_refuse(p, "resize", e);
    int r = stdio_resize(&p->io, width, height);
    return r < 0 ? err_errno(e, r, "failed to resize the terminal of process %s", process_id(p))
                 : 0;
}

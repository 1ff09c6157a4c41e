/* SPDX-License-Identifier: Apache-2.0 */
/* How a process comes into being: the launch that create, exec and restore share, and Start. */
#include <fcntl.h>
#include <malloc.h>

#include "base/fs.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "shim/container.h"
#include "shim/topics.h"

#define SLOW_LAUNCH_MS 1000
/* What the runtime may take to start a container whose init has ended: it waits for init to open a
 * fifo, and that may never come. */
#define START_GRACE_MS 2000

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

    p->is_launching = false;
    p->call = NULL;
    if (e) {
        /* Of a process that has ended no time was short. */
        enum err_code code = p->has_ended ? ERR_UNKNOWN : e->code;
        err_set(&op->error, code, "OCI runtime start failed: %s", e->msg);
        op_end(op, &op->error);
    } else {
        container_has_started(c);
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
        process_wake_waiters(p);
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

/* A container that is created and not started has its namespaces already, and init waits in them. */
static int check_exec_start(const struct container *c, struct err *e)
{
    const struct process *init = c->init;
    bool is_there = init->state == PROCESS_CREATED || init->state == PROCESS_RUNNING;

    if (!init->has_ended && process_is_paused(init))
        return process_refuse(init, "exec", e);
    if (!is_there || init->has_ended || init->exit.pid == 0)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "container %s init process is not running: failed precondition", c->id);
    return 0;
}

static void start_exec(struct op *op)
{
    struct process *p = op->process;
    struct container *c = p->container;
    _free_ char *pid_file = str_printf("%s/%s.pid", c->bundle, p->exec_id);

    if (check_exec_start(c, &op->error) < 0) {
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoint and restore, which the OCI runtime does with CRIU. */
#include <fcntl.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "shim/container.h"
#include "shim/topics.h"

/* Memory is written out: the time depends on how much there is. */
#define CHECKPOINT_TIMEOUT_MS 600000
/* What is left to do when init has ended by it. */
#define CHECKPOINT_GRACE_MS 10000
#define LOG_KEPT_MAX (1 << 20)

struct checkpoint_call {
    struct container_checkpoint request;
    char *image_path, *work_path, *parent_path;
    char **empty_namespaces;
    bool owns_work;
    done_fn done;
    void *userdata;
};

static void checkpoint_done(void *userdata, const struct err *e)
{
    struct checkpoint_call *call = userdata;

    call->done(call->userdata, e);
    free(call->image_path);
    free(call->work_path);
    free(call->parent_path);
    strv_free(call->empty_namespaces);
    free(call);
}

/* The end of CRIU's log says why; the bundle keeps it when the work directory goes. */
static void keep_criu_log(struct container *c, const char *work_path)
{
    _free_ char *from = fs_join(work_path, "dump.log");
    _free_ char *to = fs_join(c->bundle, "criu-dump.log");
    _free_ char *text = malloc(LOG_KEPT_MAX);
    struct stat st;
    _close_ int fd = from ? open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -EBADF;

    if (!to || !text || fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    if (st.st_size > LOG_KEPT_MAX)
        lseek(fd, -LOG_KEPT_MAX, SEEK_END);
    ssize_t n = fs_read_all(fd, text, LOG_KEPT_MAX);
    if (n >= 0)
        fs_write_file_atomic(AT_FDCWD, to, text, (size_t)n, 0600, false);
}

static void remove_work(struct container *c, const char *work_path)
{
    int r = fs_rm_rf(AT_FDCWD, work_path);

    if (r < 0)
        log_warn("container %s: failed to remove %s: %s", c->id, work_path, err_strerror(r));
}

static void on_checkpointed(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct container *c = op->process->container;
    struct checkpoint_call *call = op->userdata;

    op->process->call = NULL;
    /* CRIU freezes what it dumps, and may have been killed over it. */
    if (op->process->has_ended || c->is_killed)
        cgroup_let_end(&c->cgroup);
    else if (e && op->process->state == PROCESS_RUNNING)
        cgroup_thaw(&c->cgroup);
    if (e && strstr(e->msg, "unknown command")) {
        err_set(&op->error, ERR_UNIMPLEMENTED,
                "%s is built without CRIU and cannot checkpoint container %s; run it with an OCI "
                "runtime that can, such as runc: not implemented",
                runtime_name(&c->runtime), c->id);
    } else if (e) {
        /* runc's second line names a log in the work directory, ours comes in its place. */
        const char *second = strstr(e->msg, " log file: ");
        int len = (int)(second ? (size_t)(second - e->msg) : strlen(e->msg));
        keep_criu_log(c, call->work_path);
        err_set(&op->error, e->code, "%.*s path= %s/criu-dump.log", len, e->msg, c->bundle);
    }
    if (call->owns_work)
        remove_work(c, call->work_path);
    op_end(op, e ? &op->error : NULL);
}

static void checkpoint_begin(struct op *op)
{
    struct process *p = op->process;
    struct container *c = p->container;
    const struct checkpoint_call *call = op->userdata;
    const struct container_checkpoint *request = &call->request;
    struct runtime_args args = {};

    if (p->state != PROCESS_RUNNING && p->state != PROCESS_PAUSED) {
        process_refuse(p, "checkpoint", &op->error);
        op_end(op, &op->error);
        return;
    }
    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "checkpoint");
    runtime_args_add(&args, "--image-path");
    runtime_args_add(&args, call->image_path);
    runtime_args_add(&args, "--work-path");
    runtime_args_add(&args, call->work_path);
    if (call->parent_path) {
        runtime_args_add(&args, "--parent-path");
        runtime_args_add(&args, call->parent_path);
    }
    if (request->open_tcp)
        runtime_args_add(&args, "--tcp-established");
    if (request->external_unix_sockets)
        runtime_args_add(&args, "--ext-unix-sk");
    if (request->terminal)
        runtime_args_add(&args, "--shell-job");
    if (request->file_locks)
        runtime_args_add(&args, "--file-locks");
    for (size_t i = 0; i < strv_len(call->empty_namespaces); i++) {
        runtime_args_add(&args, "--empty-ns");
        runtime_args_add(&args, call->empty_namespaces[i]);
    }
    if (!request->exit)
        runtime_args_add(&args, "--leave-running");
    runtime_args_add(&args, c->id);
    op_call_while_alive(op,
                        &(struct runtime_request){
                            .command = "checkpoint",
                            .args = &args,
                            .timeout_ms = CHECKPOINT_TIMEOUT_MS,
                        },
                        CHECKPOINT_GRACE_MS, on_checkpointed);
}

void container_checkpoint(struct container *c, const struct container_checkpoint *request,
                          done_fn done, void *userdata)
{
    struct checkpoint_call *call = calloc(1, sizeof(*call));
    struct err e = ERR_INIT;
    bool ok = call != NULL;

    if (ok) {
        *call = (struct checkpoint_call){.request = *request, .done = done, .userdata = userdata};
        call->image_path = str_empty(request->image_path) ? fs_join(c->bundle, "checkpoint")
                                                          : strdup(request->image_path);
        call->work_path = str_empty(request->work_path) ? fs_join(c->bundle, "criu-work")
                                                        : strdup(request->work_path);
        call->owns_work = str_empty(request->work_path);
        ok = call->image_path && call->work_path;
        if (ok && !str_empty(request->parent_path))
            ok = (call->parent_path = strdup(request->parent_path)) != NULL;
        for (size_t i = 0; ok && i < request->n_empty_namespaces; i++)
            ok = strv_push(&call->empty_namespaces, request->empty_namespaces[i]) == 0;
    }
    if (!ok) {
        err_oom(&e);
        if (call)
            checkpoint_done(call, &e);
        else
            done(userdata, &e);
        return;
    }
    struct op *op = op_new(c->init, true, checkpoint_begin, checkpoint_done, call);
    if (op)
        op_submit(op);
}

/* Restore: a container created from a checkpoint comes into being when it is started. CRIU's log
 * stays in the work directory (op->spec_path) when that fails. */

static void add_restore_args(struct op *op, struct runtime_args *args, const char *console)
{
    struct container *c = op->process->container;

    runtime_args_add(args, "restore");
    runtime_args_add(args, "--image-path");
    runtime_args_add(args, c->checkpoint);
    runtime_args_add(args, "--work-path");
    runtime_args_add(args, op->spec_path);
    if (c->parent_checkpoint) {
        runtime_args_add(args, "--parent-path");
        runtime_args_add(args, c->parent_checkpoint);
    }
    runtime_args_add(args, "--detach");
    runtime_args_add(args, "--pid-file");
    runtime_args_add(args, op->text);
    if (console) {
        runtime_args_add(args, "--console-socket");
        runtime_args_add(args, console);
    }
    if (c->options.no_pivot_root)
        runtime_args_add(args, "--no-pivot");
    runtime_args_add(args, "--no-subreaper");
    runtime_args_add(args, "--bundle");
    runtime_args_add(args, c->bundle);
    runtime_args_add(args, c->id);
}

static void finish_undo(struct op *op)
{
    struct process *p = op->process;

    stdio_done(&p->io);
    p->exit = (struct process_exit){};
    p->has_ended = false;
    p->is_launching = false;
    op_end(op, &op->error);
}

static void undo_restore(struct op *op)
{
    if (op->runtime_called)
        container_undo_launch(op, finish_undo);
    else
        finish_undo(op);
}

static void on_restored(struct op *op)
{
    struct process *p = process_ref(op->process);
    struct container *c = p->container;

    if (op->error.code != ERR_OK) {
        undo_restore(op);
    } else {
        container_find_cgroup(c);
        if (!c->options.criu_work_path)
            remove_work(c, op->spec_path);
        p->is_launching = false;
        container_has_started(c);
        op_end(op, NULL);
        process_tell_end(p);
    }
    process_unref(p);
}

void container_restore(struct op *op)
{
    struct container *c = op->process->container;
    _free_ char *pid_file = fs_join(c->bundle, "init.pid");

    op->spec_path = c->options.criu_work_path ? strdup(c->options.criu_work_path)
                                              : fs_join(c->bundle, "criu-work");
    if (!pid_file || !op->spec_path) {
        err_oom(&op->error);
        op_end(op, &op->error);
        return;
    }
    process_launch(op, &(struct process_launch){
                           .command = "restore",
                           .pid_file = pid_file,
                           .timeout_ms = CHECKPOINT_TIMEOUT_MS,
                           .add_args = add_restore_args,
                           .launched = on_restored,
                       });
}

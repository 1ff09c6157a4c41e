/* SPDX-License-Identifier: Apache-2.0 */
/* What is done to a container as a whole, while it runs. */
#include <jansson.h>

#include "base/str.h"
#include "events.pb-c.h"
#include "shim/container.h"
#include "shim/topics.h"

#define PIDS_OUTPUT_MAX (1024 * 1024)

static void call_command(struct op *op, const char *command, runtime_call_fn fn)
{
    struct container *c = op->process->container;
    struct runtime_args args = {};

    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, command);
    runtime_args_add(&args, c->id);
    op_call(op,
            &(struct runtime_request){
                .command = command,
                .args = &args,
                .timeout_ms = PROCESS_CALL_TIMEOUT_MS,
            },
            fn);
}

void container_call_delete(struct op *op, bool force, runtime_call_fn fn)
{
    struct container *c = op->process->container;
    struct runtime_args args = {};

    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "delete");
    if (force)
        runtime_args_add(&args, "--force");
    runtime_args_add(&args, c->id);
    op_call(op,
            &(struct runtime_request){
                .command = "delete",
                .args = &args,
                .timeout_ms = PROCESS_CALL_TIMEOUT_MS,
            },
            fn);
}

static void submit(struct container *c, bool queued, op_fn begin, done_fn done, void *userdata)
{
    struct op *op = op_new(c->init, queued, begin, done, userdata);

    if (op)
        op_submit(op);
}

/* Pause and resume. Init may end meanwhile; its state is then left alone. */

static void on_paused(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct process *p = op->process;
    Pb__Event__TaskPaused event = PB__EVENT__TASK_PAUSED__INIT;

    if (p->state == PROCESS_PAUSING)
        p->state = e ? PROCESS_RUNNING : PROCESS_PAUSED;
    if (!e) {
        event.container_id = p->container->id;
        container_publish(p->container, TOPIC_PAUSED, &event.base);
    }
    /* A runtime that was killed half way may have frozen it and not said so. */
    if (p->has_ended || p->container->is_killed)
        cgroup_let_end(&p->container->cgroup);
    else if (e)
        cgroup_thaw(&p->container->cgroup);
    op_end(op, e);
}

static void pause_begin(struct op *op)
{
    struct process *p = op->process;

    if (p->state != PROCESS_RUNNING) {
        process_refuse(p, "pause", &op->error);
        op_end(op, &op->error);
        return;
    }
    p->state = PROCESS_PAUSING;
    call_command(op, "pause", on_paused);
}

void container_pause(struct container *c, done_fn done, void *userdata)
{
    submit(c, true, pause_begin, done, userdata);
}

static void on_resumed(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct process *p = op->process;
    Pb__Event__TaskResumed event = PB__EVENT__TASK_RESUMED__INIT;

    if (!e) {
        if (p->state == PROCESS_PAUSED)
            p->state = PROCESS_RUNNING;
        event.container_id = p->container->id;
        container_publish(p->container, TOPIC_RESUMED, &event.base);
    } else if (p->state == PROCESS_PAUSED && !cgroup_is_frozen(&p->container->cgroup)) {
        p->state = PROCESS_RUNNING; /* it was resumed, and the runtime did not get to say so */
    }
    op_end(op, e);
}

static void resume_begin(struct op *op)
{
    struct process *p = op->process;

    if (p->state != PROCESS_PAUSED) {
        process_refuse(p, "resume", &op->error);
        op_end(op, &op->error);
        return;
    }
    call_command(op, "resume", on_resumed);
}

void container_resume(struct container *c, done_fn done, void *userdata)
{
    submit(c, true, resume_begin, done, userdata);
}

/* Update. */

static void on_updated(void *userdata, const struct err *e, const char *output)
{
    op_end(userdata, e);
}

static void update_begin(struct op *op)
{
    struct process *p = op->process;
    struct container *c = p->container;
    struct runtime_args args = {};

    if (p->state == PROCESS_STOPPED || p->state == PROCESS_DELETED) {
        process_refuse(p, "update", &op->error);
        op_end(op, &op->error);
        return;
    }
    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "update");
    runtime_args_add(&args, "--resources");
    /* Not "-", which crun takes for a file's name. */
    runtime_args_add(&args, "/proc/self/fd/0");
    runtime_args_add(&args, c->id);
    op_call(op,
            &(struct runtime_request){
                .command = "update",
                .args = &args,
                .input = op->text,
                .timeout_ms = PROCESS_CALL_TIMEOUT_MS,
            },
            on_updated);
}

void container_set_resources(struct container *c, const char *resources, size_t n, done_fn done,
                             void *userdata)
{
    struct op *op = op_new(c->init, true, update_begin, done, userdata);

    if (!op)
        return;
    op->text = strndup(resources, n);
    if (!op->text) {
        op->queued = false;
        err_oom(&op->error);
        op_end(op, &op->error);
        return;
    }
    op_submit(op);
}

/* Pids. */

struct pids_call {
    struct container_pids *ret;
    done_fn done;
    void *userdata;
};

static int parse_pids(const char *output, struct container_pids *ret, struct err *e)
{
    json_error_t why;
    json_t *list = json_loads(output, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);

    if (!json_is_array(list) && !json_is_null(list)) {
        json_decref(list);
        return err_set(e, ERR_UNKNOWN, "the OCI runtime's list of processes is no JSON array");
    }
    size_t n = json_array_size(list);
    uint32_t *pids = calloc(MAX_OF(n, (size_t)1), sizeof(*pids));
    if (!pids) {
        json_decref(list);
        return err_oom(e);
    }
    size_t taken = 0;
    for (size_t i = 0; i < n; i++) {
        json_int_t pid = json_integer_value(json_array_get(list, i));
        if (pid > 0 && pid <= INT32_MAX)
            pids[taken++] = (uint32_t)pid;
    }
    json_decref(list);
    *ret = (struct container_pids){.pids = pids, .n = taken};
    return 0;
}

static void on_pids(void *userdata, const struct err *e, const char *output)
{
    struct op *op = userdata;
    struct pids_call *call = op->userdata;

    /* Of a container that has ended the group may be gone already: it has no processes. */
    if (e && op->process->has_ended) {
        *call->ret = (struct container_pids){};
        op_end(op, NULL);
    } else if (e) {
        op_end(op, e);
    } else {
        op_end(op, parse_pids(output, call->ret, &op->error) < 0 ? &op->error : NULL);
    }
}

static void pids_begin(struct op *op)
{
    struct container *c = op->process->container;
    struct runtime_args args = {};

    runtime_args_globals(&args, &c->runtime);
    runtime_args_add(&args, "ps");
    runtime_args_add(&args, "--format");
    runtime_args_add(&args, "json");
    runtime_args_add(&args, c->id);
    op_call(op,
            &(struct runtime_request){
                .command = "ps",
                .args = &args,
                .timeout_ms = PROCESS_CALL_TIMEOUT_MS,
                .max_output = PIDS_OUTPUT_MAX,
            },
            on_pids);
}

static void pids_done(void *userdata, const struct err *e)
{
    struct pids_call *call = userdata;

    call->done(call->userdata, e);
    free(call);
}

void container_list_pids(struct container *c, struct container_pids *ret, done_fn done,
                         void *userdata)
{
    struct pids_call *call = malloc(sizeof(*call));
    struct err e = ERR_INIT;

    if (!call) {
        err_oom(&e);
        done(userdata, &e);
        return;
    }
    *call = (struct pids_call){.ret = ret, .done = done, .userdata = userdata};
    submit(c, false, pids_begin, pids_done, call);
}

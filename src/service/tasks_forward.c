/* SPDX-License-Identifier: Apache-2.0 */
#include "service/tasks_forward.h"

#include <signal.h>

#include "base/log.h"
#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "store/containers.h"

/* How long a shim may take to look at its own memory. */
#define STUCK_TIMEOUT_MS 3000

struct forward_stuck {
    struct workq_job job;
    struct task *task;
};

/* Every request of the tasks service begins like this. */
struct container_request {
    ProtobufCMessage base;
    char *container_id;
};

static void forward_free(struct forward *f)
{
    task_unref(f->task);
    grpc_call_unref(f->call);
    free(f);
}

int task_missing(struct service_context *ctx, const char *ns, const char *id, struct err *e)
{
    struct container container;

    int r = container_get(ctx->db, ns, id, &container, e);
    if (r < 0)
        return r;
    container_done(&container);
    return err_set(e, ERR_NOT_FOUND, "task %s not found", id);
}

/* [pool] There is no task: what is missing decides the words. */
static void forward_missing(struct workq_job *job)
{
    struct forward *f = container_of(job, struct forward, job);
    const char *id = ((const struct container_request *)f->request)->container_id;
    const char *ns = NULL;
    struct err e = ERR_INIT;

    int r = service_namespace(f->call, &ns, &e);
    if (r >= 0)
        task_missing(grpc_call_userdata(f->call), ns, id, &e);
    grpc_call_finish(f->call, &e);
    forward_free(f);
}

/*
 * SIGKILL for a container whose shim does not answer: a shim answers State out of its memory, so
 * one that does not even do that is stuck (stopped, most likely) and will not carry out anything.
 * It is killed, and the container with it by the cleanup that follows; Kill is answered when that
 * is done.
 */

static void forward_unanswered(struct forward *f)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    grpc_call_finish(f->call, &e);
    forward_free(f);
}

static void forward_killed(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct forward *f = userdata;
    Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    if (reply)
        protobuf_c_message_free_unpacked(reply, NULL);
    if (e)
        grpc_call_finish(f->call, e);
    else
        grpc_call_reply(f->call, &empty.base);
    forward_free(f);
}

static void await_end(struct forward *f)
{
    pb__task__wait_request__init(&f->shim.wait);
    f->shim.wait.id = f->task->id;
    task_wait(f->task, &f->shim.base, forward_killed, f);
}

/* [pool] The job has a reference of its own: the answer comes from the loop. */
static void kill_stuck_shim(struct workq_job *job)
{
    struct forward_stuck *stuck = container_of(job, struct forward_stuck, job);

    task_kill_unreachable(stuck->task);
    task_unref(stuck->task);
    free(stuck);
}

static void forward_probed(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct forward *f = userdata;
    const struct service_context *ctx = grpc_call_userdata(f->call);
    struct forward_stuck *stuck = NULL;

    if (reply)
        protobuf_c_message_free_unpacked(reply, NULL);
    if (e && e->code == ERR_DEADLINE_EXCEEDED)
        stuck = malloc(sizeof(*stuck));
    if (!stuck) {
        forward_unanswered(f);
        return;
    }
    stuck->task = task_ref(f->task);
    if (workq_submit(ctx->pool, &stuck->job, kill_stuck_shim) < 0) {
        task_unref(stuck->task);
        free(stuck);
        forward_unanswered(f);
        return;
    }
    log_warn("shim of task %s does not answer, and its container is to be killed: killing both",
             f->task->key);
    await_end(f);
}

/* SIGKILL for a whole container. */
static bool is_last_resort(const struct forward *f)
{
    return str_eq(f->route->method, "Kill") && f->shim.kill.signal == SIGKILL &&
           str_empty(f->shim.kill.exec_id);
}

/* The shim has died, and the cleanup that follows kills the container. */
static bool is_being_killed(const struct forward *f)
{
    const struct service_context *ctx = grpc_call_userdata(f->call);

    return tasks_will_clean_up(ctx->tasks, f->task);
}

static void forward_replied(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct forward *f = userdata;
    struct err oom = ERR_INIT;
    ProtobufCMessage *answer = NULL;

    if (e && e->code == ERR_UNAVAILABLE && is_last_resort(f) && is_being_killed(f)) {
        await_end(f);
        return;
    }
    if (e && e->code == ERR_DEADLINE_EXCEEDED && is_last_resort(f)) {
        pb__task__state_request__init(&f->shim.state);
        f->shim.state.id = f->task->id;
        task_call(f->task, "State", &f->shim.base, &pb__task__state_response__descriptor,
                  STUCK_TIMEOUT_MS, forward_probed, f);
        return;
    }
    if (!e) {
        answer = f->route->convert(f, reply);
        if (!answer)
            e = (err_oom(&oom), &oom);
    } else if (f->route->recover && f->route->recover(f, e, &answer)) {
        e = NULL;
    }
    if (e)
        grpc_call_finish(f->call, e);
    else
        grpc_call_reply(f->call, answer);
    if (answer)
        protobuf_c_message_free_unpacked(answer, NULL);
    if (reply)
        protobuf_c_message_free_unpacked(reply, NULL);
    forward_free(f);
}

/* The shim has no more time than its caller. */
static uint64_t forward_timeout(const struct forward *f)
{
    int64_t left = grpc_call_time_left_ms(f->call);
    const struct service_context *ctx = grpc_call_userdata(f->call);
    uint64_t timeout = f->route->timeout_ms;

    if (timeout == FORWARD_STATE_TIMEOUT)
        timeout = ctx->state_timeout_ms;
    if (left >= 0 && (timeout == 0 || (uint64_t)left < timeout))
        timeout = left > 0 ? (uint64_t)left : 1;
    return timeout;
}

void tasks_forward(struct grpc_call *call, const ProtobufCMessage *request,
                   const struct forward_route *route)
{
    struct service_context *ctx = grpc_call_userdata(call);
    const char *id = ((const struct container_request *)request)->container_id;
    struct err e = ERR_INIT;
    const char *ns = NULL;

    int r = service_namespace(call, &ns, &e);
    struct forward *f = r >= 0 ? calloc(1, sizeof(*f)) : NULL;
    if (!f) {
        if (r >= 0)
            err_oom(&e);
        grpc_call_finish(call, &e);
        return;
    }
    f->call = grpc_call_ref(call);
    f->route = route;
    f->request = request;
    f->task = tasks_find(ctx->tasks, ns, id);
    if (!f->task) {
        if (workq_submit(ctx->pool, &f->job, forward_missing) < 0) {
            err_set(&e, ERR_NOT_FOUND, "task %s not found", id);
            grpc_call_finish(call, &e);
            forward_free(f);
        }
        return;
    }
    route->build(f);
    if (str_eq(route->method, "Wait"))
        task_wait(f->task, &f->shim.base, forward_replied, f);
    else
        task_call(f->task, route->method, &f->shim.base, route->reply, forward_timeout(f),
                  forward_replied, f);
}

Pb__V1types__Process *process_from_state(Pb__Task__StateResponse *state)
{
    Pb__V1types__Process *p = malloc(sizeof(*p));
    if (!p)
        return NULL;
    pb__v1types__process__init(p);
    p->id = PB_MOVE_STR(state->id);
    p->pid = state->pid;
    p->status = state->status;
    p->stdin = PB_MOVE_STR(state->stdin);
    p->stdout = PB_MOVE_STR(state->stdout);
    p->stderr = PB_MOVE_STR(state->stderr);
    p->terminal = state->terminal;
    p->exit_status = state->exit_status;
    p->exited_at = TAKE(state->exited_at);
    return p;
}

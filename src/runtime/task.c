/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/task.h"

#include "base/str.h"
#include "runtime/linux_cgroup.h"
#include "runtime/task_events.h"
#include "runtime/tasks.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"

const char *task_state_name(enum task_state state)
{
    static const char *const names[] = {
        [TASK_CREATING] = "creating", [TASK_RECOVERING] = "recovering",
        [TASK_LIVE] = "live",         [TASK_LOST] = "lost",
        [TASK_GONE] = "gone",
    };
    return (size_t)state < ARRAY_SIZE(names) ? names[state] : "?";
}

struct task *task_new(struct tasks *tasks, const char *ns, const char *id)
{
    struct task *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    atomic_init(&t->refs, 1);
    t->tasks = tasks;
    t->bundle = (struct bundle)BUNDLE_NULL;
    list_init(&t->parked);
    list_init(&t->exit_waiters);
    list_init(&t->held);
    t->ns = strdup(ns);
    t->id = strdup(id);
    t->key = str_printf("%s/%s", ns, id);
    if (!t->ns || !t->id || !t->key)
        return task_unref(t);
    return t;
}

struct task *task_ref(struct task *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

struct task *task_unref(struct task *t)
{
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1)
        return NULL;
    shim_unref(t->shim);
    shim_log_close(t->log);
    shim_log_close(t->error_log);
    linux_cgroup_free(t->group);
    bundle_done(&t->bundle);
    shim_binary_done(&t->binary);
    free(t->images_path);
    free(t->ns);
    free(t->id);
    free(t->key);
    free(t);
    return NULL;
}

/* A call that waits: for the task's recovery, or (a Wait) for the cleanup of a dead shim. */
struct parked_call {
    struct list link;
    struct task *task;
    const char *method;
    const ProtobufCMessage *request;
    const ProtobufCMessageDescriptor *reply;
    uint64_t timeout_ms;
    shim_reply_fn fn;
    void *userdata;
};

static void call_now(struct task *t, const char *method, const ProtobufCMessage *request,
                     const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms, shim_reply_fn fn,
                     void *userdata)
{
    struct shim *shim = tasks_live_shim(t->tasks, t);

    if (!shim) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_NOT_FOUND, "task %s not found", t->id);
        fn(userdata, &e, NULL);
        return;
    }
    if (t->is_linux && str_eq(method, "Stats"))
        linux_cgroup_stats(t, fn, userdata);
    else if (t->is_linux)
        task_events_call(t, shim, method, request, reply, timeout_ms, fn, userdata);
    else
        shim_call(shim, t->ns, method, request, reply, timeout_ms, fn, userdata);
    shim_unref(shim);
}

void task_call(struct task *t, const char *method, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms, shim_reply_fn fn,
               void *userdata)
{
    if (tasks_state(t->tasks, t) != TASK_RECOVERING) {
        call_now(t, method, request, reply, timeout_ms, fn, userdata);
        return;
    }
    struct parked_call *call = malloc(sizeof(*call));
    if (!call) {
        struct err e = ERR_INIT;
        err_oom(&e);
        fn(userdata, &e, NULL);
        return;
    }
    *call = (struct parked_call){{NULL, NULL}, task_ref(t), method, request,
                                 reply,        timeout_ms,  fn,     userdata};
    list_push_back(&t->parked, &call->link);
}

static bool asks_state_of_init(const struct parked_call *call)
{
    return str_eq(call->method, "State") &&
           str_empty(((const Pb__Task__StateRequest *)call->request)->exec_id);
}

void task_unpark_stated(struct task *t, ProtobufCMessage *state)
{
    for (struct list *l; (l = list_pop_front(&t->parked));) {
        struct parked_call *call = container_of(l, struct parked_call, link);
        /* Old once the end was told, or when another call may change it. */
        if (t->is_linux || atomic_load(&t->exit_seen) || !asks_state_of_init(call)) {
            pb_free(state);
            state = NULL;
        }
        if (state)
            call->fn(call->userdata, NULL, TAKE(state));
        else
            call_now(t, call->method, call->request, call->reply, call->timeout_ms, call->fn,
                     call->userdata);
        task_unref(call->task);
        free(call);
    }
    pb_free(state);
}

void task_unpark(struct task *t)
{
    task_unpark_stated(t, NULL);
}

/* A Wait on its way: kept so that it can outlive the shim. */
static void wait_answered(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct parked_call *wait = userdata;
    struct task *t = wait->task;
    bool init = str_empty(((const Pb__Task__WaitRequest *)wait->request)->exec_id);

    /* The connection is gone, and calls are told of it before the registry is: the cleanup that
     * follows will know how init ended. */
    if (e && e->code == ERR_UNAVAILABLE && init && tasks_will_clean_up(t->tasks, t)) {
        list_push_back(&t->exit_waiters, &wait->link);
        return;
    }
    wait->fn(wait->userdata, e, reply);
    task_unref(t);
    free(wait);
}

void task_wait(struct task *t, const ProtobufCMessage *request, shim_reply_fn fn, void *userdata)
{
    struct parked_call *wait = malloc(sizeof(*wait));
    if (!wait) {
        struct err e = ERR_INIT;
        err_oom(&e);
        fn(userdata, &e, NULL);
        return;
    }
    *wait = (struct parked_call){
        .task = task_ref(t), .request = request, .fn = fn, .userdata = userdata};
    task_call(t, "Wait", request, &pb__task__wait_response__descriptor, 0, wait_answered, wait);
}

void task_answer_waiters(struct task *t, const struct task_exit *exit)
{
    for (struct list *l; (l = list_pop_front(&t->exit_waiters));) {
        struct parked_call *wait = container_of(l, struct parked_call, link);
        Pb__Task__WaitResponse *reply = malloc(sizeof(*reply));
        struct err e = ERR_INIT;

        if (reply) {
            pb__task__wait_response__init(reply);
            reply->exit_status = exit->status;
            reply->exited_at = pb_timestamp_new(exit->at);
        } else {
            err_oom(&e);
        }
        wait->fn(wait->userdata, reply ? NULL : &e, reply ? &reply->base : NULL);
        task_unref(wait->task);
        free(wait);
    }
}

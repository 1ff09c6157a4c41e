/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/task_events.h"

#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "runtime/linux_cgroup.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

struct held_event {
    struct list link;
    ProtobufCMessage *envelope;
};

void late_exits_done(struct late_exits *l)
{
    for (size_t i = 0; i < TASK_EVENTS_LATE; i++)
        free(l->keys[i]);
}

static char *exit_key(const char *ns, const char *container, const char *process, uint32_t pid)
{
    return str_printf("%s/%s/%s/%u", ns, container, process, pid);
}

static bool is_late(const struct late_exits *l, const char *key)
{
    for (size_t i = 0; i < TASK_EVENTS_LATE; i++)
        if (l->keys[i] && str_eq(l->keys[i], key))
            return true;
    return false;
}

bool task_events_claim_exit(struct task *task, uint32_t pid)
{
    struct tasks *t = task->tasks;
    char *key = exit_key(task->ns, task->id, task->id, pid);

    pthread_mutex_lock(&t->lock);
    bool claimed = !atomic_exchange(&task->exit_seen, true);
    if (claimed && key) {
        free(t->late.keys[t->late.next]);
        t->late.keys[t->late.next] = TAKE(key);
        t->late.next = (t->late.next + 1) % TASK_EVENTS_LATE;
    }
    pthread_mutex_unlock(&t->lock);
    free(key);
    return claimed;
}

/* Under the registry's lock. */
static bool hold(struct task *task, const Pb__Types__Envelope *envelope)
{
    struct err e = ERR_INIT;
    _free_ uint8_t *bytes = NULL;
    size_t n = 0;
    struct held_event *held = task->n_held < TASK_EVENTS_HELD_MAX ? calloc(1, sizeof(*held)) : NULL;

    if (!held)
        return false;
    if (pb_pack(&envelope->base, &bytes, &n) < 0 ||
        pb_unpack(&pb__types__envelope__descriptor, bytes, n, &held->envelope, &e) < 0) {
        free(held);
        return false;
    }
    list_push_back(&task->held, &held->link);
    task->n_held++;
    return true;
}

static void publish(struct task *task, const char *topic, const ProtobufCMessage *event)
{
    struct err e = ERR_INIT;

    if (exchange_publish(task->tasks->exchange, task->ns, topic, event, &e) < 0)
        log_warn("publish %s of task %s: %s", topic, task->key, e.msg);
}

/* A reason to hold has ended; with the last one what was held back goes on its way, in order. */
static void release_held(struct task *task)
{
    struct tasks *t = task->tasks;

    for (;;) {
        pthread_mutex_lock(&t->lock);
        struct list *l = task->starting == 1 ? list_pop_front(&task->held) : NULL;
        if (l)
            task->n_held--;
        else
            task->starting--;
        pthread_mutex_unlock(&t->lock);
        if (!l)
            return;
        struct held_event *held = container_of(l, struct held_event, link);
        struct err e = ERR_INIT;
        if (exchange_forward(t->exchange, (const Pb__Types__Envelope *)held->envelope, &e) < 0)
            log_warn("publish exit of task %s: %s", task->key, e.msg);
        pb_free(held->envelope);
        free(held);
    }
}

static void look_run(struct event_post *post)
{
    struct task *task = container_of(post, struct task, last_look);

    linux_cgroup_look(task->group);
    release_held(task);
    task_unref(task);
}

bool task_events_gate(void *tasks, const Pb__Types__Envelope *envelope)
{
    struct tasks *t = tasks;
    struct err e = ERR_INIT;
    ProtobufCMessage *message = NULL;

    if (!str_eq(envelope->topic, "/tasks/exit") || !envelope->event ||
        pb_unpack(&pb__event__task_exit__descriptor, envelope->event->value.data,
                  envelope->event->value.len, &message, &e) < 0)
        return false;
    const Pb__Event__TaskExit *event = (const Pb__Event__TaskExit *)message;
    _cleanup_(task_unrefp) struct task *task =
        tasks_find(t, envelope->namespace_, event->container_id);
    _free_ char *key = exit_key(envelope->namespace_, event->container_id, event->id, event->pid);

    pthread_mutex_lock(&t->lock);
    bool taken = key && is_late(&t->late, key);
    bool look = false;
    if (!taken && task && task->is_linux) {
        bool is_init = str_eq(event->id, event->container_id);
        bool is_again = is_init && atomic_exchange(&task->exit_seen, true);
        look = is_init && !is_again && task->group;
        taken = is_again || ((task->starting > 0 || look) && hold(task, envelope));
        look = look && taken;
        task->starting += look;
    }
    pthread_mutex_unlock(&t->lock);
    if (look) {
        /* What it died of comes before that it died: the kernel's last word is read on the loop. */
        task_ref(task);
        event_loop_post(t->loop, &task->last_look, look_run);
    }
    pb_free(message);
    return taken;
}

/* What a method publishes. */

static void started(struct task *task, const ProtobufCMessage *request,
                    const ProtobufCMessage *reply)
{
    const Pb__Task__StartRequest *r = (const Pb__Task__StartRequest *)request;
    Pb__Event__TaskStart start = PB__EVENT__TASK_START__INIT;
    Pb__Event__TaskExecStarted exec = PB__EVENT__TASK_EXEC_STARTED__INIT;

    start.container_id = exec.container_id = task->id;
    start.pid = exec.pid = ((const Pb__Task__StartResponse *)reply)->pid;
    exec.exec_id = r->exec_id;
    /* What was restored has a group only now. */
    if (str_empty(r->exec_id) && !task->group) {
        task->group = linux_cgroup_new(task, (pid_t)start.pid);
        if (task->group)
            linux_cgroup_watch(task->group);
    }
    if (str_empty(r->exec_id))
        publish(task, "/tasks/start", &start.base);
    else
        publish(task, "/tasks/exec-started", &exec.base);
}

static void paused(struct task *task, const ProtobufCMessage *request,
                   const ProtobufCMessage *reply)
{
    Pb__Event__TaskPaused event = PB__EVENT__TASK_PAUSED__INIT;

    event.container_id = task->id;
    publish(task, "/tasks/paused", &event.base);
}

static void resumed(struct task *task, const ProtobufCMessage *request,
                    const ProtobufCMessage *reply)
{
    Pb__Event__TaskResumed event = PB__EVENT__TASK_RESUMED__INIT;

    event.container_id = task->id;
    publish(task, "/tasks/resumed", &event.base);
}

static void checkpointed(struct task *task, const ProtobufCMessage *request,
                         const ProtobufCMessage *reply)
{
    Pb__Event__TaskCheckpointed event = PB__EVENT__TASK_CHECKPOINTED__INIT;

    event.container_id = task->id;
    publish(task, "/tasks/checkpointed", &event.base);
}

struct event_rule {
    const char *method;
    bool holds_exits;
    void (*publish)(struct task *task, const ProtobufCMessage *request,
                    const ProtobufCMessage *reply);
};
static const struct event_rule rules[] = {
    {"Start", true, started},
    {"Pause", false, paused},
    {"Resume", false, resumed},
    {"Checkpoint", false, checkpointed},
};

struct observed_call {
    struct task *task;
    const struct event_rule *rule;
    const ProtobufCMessage *request;
    shim_reply_fn fn;
    void *userdata;
};

static void observed_answer(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct observed_call *call = userdata;

    if (!e)
        call->rule->publish(call->task, call->request, reply);
    if (call->rule->holds_exits)
        release_held(call->task);
    call->fn(call->userdata, e, reply);
    task_unref(call->task);
    free(call);
}

void task_events_call(struct task *task, struct shim *shim, const char *method,
                      const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                      uint64_t timeout_ms, shim_reply_fn fn, void *userdata)
{
    const struct event_rule *rule = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(rules) && !rule; i++)
        if (str_eq(rules[i].method, method))
            rule = &rules[i];
    if (!rule) {
        shim_call(shim, task->ns, method, request, reply, timeout_ms, fn, userdata);
        return;
    }
    struct observed_call *call = malloc(sizeof(*call));
    if (!call) {
        struct err e = ERR_INIT;
        err_oom(&e);
        fn(userdata, &e, NULL);
        return;
    }
    *call = (struct observed_call){task_ref(task), rule, request, fn, userdata};
    if (rule->holds_exits) {
        pthread_mutex_lock(&task->tasks->lock);
        task->starting++;
        pthread_mutex_unlock(&task->tasks->lock);
    }
    shim_call(shim, task->ns, method, request, reply, timeout_ms, observed_answer, call);
}

void task_events_created(struct task *task, const Pb__Task__CreateTaskRequest *request,
                         uint32_t pid)
{
    Pb__Event__TaskCreate event = PB__EVENT__TASK_CREATE__INIT;
    Pb__Event__TaskIO io = PB__EVENT__TASK_IO__INIT;

    io.stdin = request->stdin;
    io.stdout = request->stdout;
    io.stderr = request->stderr;
    io.terminal = request->terminal;
    event.container_id = task->id;
    event.bundle = task->bundle.path;
    event.n_rootfs = request->n_rootfs;
    event.rootfs = request->rootfs;
    event.io = &io;
    event.checkpoint = request->checkpoint;
    event.pid = pid;
    publish(task, "/tasks/create", &event.base);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "runtime/linux_bundle.h"
#include "runtime/task_images.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

/* Of runtime v1 it is our own word. */
static void saw_delete(struct tasks *t, const Pb__Types__Envelope *envelope)
{
    ProtobufCMessage *message = NULL;
    struct err e = ERR_INIT;

    if (!envelope->event ||
        pb_unpack(&pb__event__task_delete__descriptor, envelope->event->value.data,
                  envelope->event->value.len, &message, &e) < 0)
        return;
    const char *id = ((Pb__Event__TaskDelete *)message)->container_id;
    _cleanup_(task_unrefp) struct task *task = tasks_find(t, envelope->namespace_, id);
    if (task && !task->is_linux)
        task_check_deleted(task);
    pb_free(message);
}

/* Notes which tasks have been reported as started and ended, so that the end of a shim reports only
 * what nobody has heard yet. Called by whoever publishes: must not block. */
static void tasks_saw(void *userdata, const Pb__Types__Envelope *envelope)
{
    struct tasks *t = userdata;
    struct err e = ERR_INIT;
    ProtobufCMessage *message = NULL;
    if (str_eq(envelope->topic, "/tasks/delete")) {
        saw_delete(t, envelope);
        return;
    }
    bool is_start = str_eq(envelope->topic, "/tasks/start");
    const ProtobufCMessageDescriptor *type =
        is_start ? &pb__event__task_start__descriptor : &pb__event__task_exit__descriptor;

    if (!envelope->event ||
        pb_unpack(type, envelope->event->value.data, envelope->event->value.len, &message, &e) < 0)
        return;
    const char *id = is_start ? ((Pb__Event__TaskStart *)message)->container_id
                              : ((Pb__Event__TaskExit *)message)->container_id;
    bool is_init = is_start || str_eq(id, ((Pb__Event__TaskExit *)message)->id);
    _cleanup_(task_unrefp) struct task *task =
        is_init ? tasks_find(t, envelope->namespace_, id) : NULL;
    if (task)
        atomic_store(is_start ? &task->start_seen : &task->exit_seen, true);
    if (task && is_start)
        task_images_drop(task);
    if (task && task->is_linux && !is_start)
        linux_bundle_note_exit_told(&task->bundle);
    pb_free(message);
}

static int tasks_watch(struct tasks *t, struct err *e)
{
    static const char *const topics[] = {"topic==\"/tasks/start\"", "topic==\"/tasks/exit\"",
                                         "topic==\"/tasks/delete\""};
    struct filter *filter = NULL;

    int r = filter_parse(topics, ARRAY_SIZE(topics), &filter, e);
    if (r < 0)
        return r;
    r = exchange_subscribe(t->exchange, filter, tasks_saw, t, &t->watch);
    if (r < 0) {
        filter_free(filter);
        return err_errno(e, r, "subscribe to the events of tasks");
    }
    return 0;
}

/* What a container of the usual kind will run on; others may differ, for the reason given then. */
static void log_runtimes(struct tasks *t)
{
    _cleanup_(runtime_choice_done) struct runtime_choice choice = {0};
    struct err e = ERR_INIT;

    if (!str_empty(t->options.oci_runtime))
        log_info("OCI runtime: %s, as configured", t->options.oci_runtime);
    else if (runtime_choice_make(&t->facts, "1.0.2", &choice, &e) >= 0)
        log_info("OCI runtime: %s (%s)", choice.path, choice.why);
    else
        log_warn("no container can be started: %s", e.msg);
}

int tasks_new(struct event_loop *loop, struct workq *pool, struct exchange *exchange,
              const struct tasks_options *options, struct tasks **ret, struct err *e)
{
    struct tasks *t = calloc(1, sizeof(*t));
    if (!t)
        return err_oom(e);
    t->loop = loop;
    t->pool = pool;
    list_init(&t->dying);
    t->exchange = exchange;
    t->options = *options;
    pthread_mutex_init(&t->lock, NULL);
    pthread_mutex_init(&t->facts_lock, NULL);
    pthread_cond_init(&t->searched, NULL);
    list_init(&t->unasked);
    if (runtime_facts_find(NULL, NULL, NULL, &t->facts) < 0) {
        tasks_free(t);
        return err_oom(e);
    }
    log_runtimes(t);
    cgroup_warm_init(&t->warm, pool);
    exchange_set_gate(exchange, task_events_gate, t);
    int r = tasks_watch(t, e);
    if (r < 0) {
        tasks_free(t);
        return r;
    }
    *ret = t;
    return 0;
}

struct tasks *tasks_free(struct tasks *t)
{
    if (!t)
        return NULL;
    tasks_end_recovery(t);
    exchange_unsubscribe(t->watch);
    exchange_set_gate(t->exchange, NULL, NULL);
    late_exits_done(&t->late);
    MAP_FOREACH (entry, &t->by_key)
        task_unref(entry->value);
    map_done(&t->by_key);
    MAP_FOREACH (entry, &t->shims)
        shim_forget(entry->value);
    map_done(&t->shims);
    for (struct list *l; (l = list_pop_front(&t->dying));)
        shim_forget(container_of(l, struct shim, dying));
    cgroup_warm_done(&t->warm);
    runtime_facts_done(&t->facts);
    strv_free(t->knocked_at);
    pthread_cond_destroy(&t->searched);
    pthread_mutex_destroy(&t->facts_lock);
    pthread_mutex_destroy(&t->lock);
    free(t);
    return NULL;
}

int tasks_add(struct tasks *t, struct task *task, struct err *e)
{
    pthread_mutex_lock(&t->lock);
    int r = map_add(&t->by_key, task->key, task);
    if (r >= 0)
        task_ref(task);
    pthread_mutex_unlock(&t->lock);
    if (r == -EEXIST)
        return err_set(e, ERR_ALREADY_EXISTS, "task %s: already exists", task->id);
    return r < 0 ? err_oom(e) : 0;
}

bool tasks_remove(struct tasks *t, struct task *task)
{
    pthread_mutex_lock(&t->lock);
    bool there = map_get(&t->by_key, task->key) == task;
    if (there)
        map_remove(&t->by_key, task->key);
    task->state = TASK_GONE;
    pthread_mutex_unlock(&t->lock);
    if (there)
        task_unref(task);
    return there;
}

void tasks_set_state(struct tasks *t, struct task *task, enum task_state state)
{
    pthread_mutex_lock(&t->lock);
    log_debug("task %s: %s -> %s", task->key, task_state_name(task->state), task_state_name(state));
    task->state = state;
    pthread_mutex_unlock(&t->lock);
}

enum task_state tasks_state(struct tasks *t, const struct task *task)
{
    pthread_mutex_lock(&t->lock);
    enum task_state state = task->state;
    pthread_mutex_unlock(&t->lock);
    return state;
}

void tasks_detach(struct tasks *t)
{
    atomic_store(&t->detached, true);
    MAP_FOREACH (entry, &t->shims)
        shim_detach(entry->value);
}

bool tasks_will_clean_up(struct tasks *t, const struct task *task)
{
    if (atomic_load(&t->detached))
        return false;
    pthread_mutex_lock(&t->lock);
    bool will = task->state == TASK_LOST || (task->state == TASK_LIVE && !task->deleting);
    pthread_mutex_unlock(&t->lock);
    return will;
}

struct shim *tasks_live_shim(struct tasks *t, const struct task *task)
{
    pthread_mutex_lock(&t->lock);
    /* A lost task keeps its dead shim, whose calls answer "ttrpc: closed" until the cleanup is
     * done. */
    bool has_shim = task->shim && (task->state == TASK_LIVE || task->state == TASK_LOST);
    struct shim *shim = has_shim ? shim_ref(task->shim) : NULL;
    pthread_mutex_unlock(&t->lock);
    return shim;
}

struct task *tasks_find(struct tasks *t, const char *ns, const char *id)
{
    _free_ char *key = str_printf("%s/%s", ns, id);
    if (!key)
        return NULL;
    pthread_mutex_lock(&t->lock);
    struct task *task = map_get(&t->by_key, key);
    if (task)
        task = task->state == TASK_CREATING ? NULL : task_ref(task);
    pthread_mutex_unlock(&t->lock);
    return task;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(struct task *const *)a)->key, (*(struct task *const *)b)->key);
}

int tasks_list(struct tasks *t, const char *ns, struct task ***ret, size_t *ret_n)
{
    size_t n = 0;

    pthread_mutex_lock(&t->lock);
    struct task **list = calloc(t->by_key.n + 1, sizeof(struct task *));
    if (list) {
        MAP_FOREACH (entry, &t->by_key) {
            struct task *task = entry->value;
            if (task->state != TASK_CREATING && (!ns || str_eq(ns, task->ns)))
                list[n++] = task_ref(task);
        }
    }
    pthread_mutex_unlock(&t->lock);
    if (!list)
        return -ENOMEM;
    qsort(list, n, sizeof(struct task *), by_key);
    *ret = list;
    *ret_n = n;
    return 0;
}

size_t tasks_count(struct tasks *t)
{
    pthread_mutex_lock(&t->lock);
    size_t n = t->by_key.n;
    pthread_mutex_unlock(&t->lock);
    return n;
}

/* [loop] The shim is gone: its connections end here, its live tasks are cleaned up on the pool. */
static void tasks_shim_died(struct shim *shim, void *userdata)
{
    struct tasks *t = userdata;
    struct task **lost = NULL;
    size_t n = 0;

    if (map_get(&t->shims, shim->address) == shim)
        map_remove(&t->shims, shim->address);
    if (shim->end.loop)
        list_push_back(&t->dying, &shim->dying);

    pthread_mutex_lock(&t->lock);
    lost = calloc(t->by_key.n + 1, sizeof(struct task *));
    MAP_FOREACH (entry, &t->by_key) {
        struct task *task = entry->value;
        if (!lost || task->shim != shim || task->state != TASK_LIVE || task->deleting)
            continue;
        task->state = TASK_LOST;
        lost[n++] = task_ref(task);
    }
    pthread_mutex_unlock(&t->lock);

    for (size_t i = 0; i < n; i++) {
        log_warn("shim of task %s is gone: cleaning up after it", lost[i]->key);
        task_cleanup_start(lost[i]);
        task_unref(lost[i]);
    }
    free(lost);
}

int tasks_connect(struct tasks *t, struct shim_endpoint *endpoint, struct shim **ret, struct err *e)
{
    struct shim *shim = map_get(&t->shims, endpoint->address);

    if (shim && shim_try_ref(shim)) {
        *ret = shim;
        return 0;
    }
    if (shim) { /* about to be freed: its address is the new one's from here on */
        shim->on_dead = NULL;
        map_remove(&t->shims, endpoint->address);
    }
    int r = shim_connect(t->loop, endpoint, tasks_shim_died, t, &shim, e);
    if (r < 0)
        return r;
    if (map_set(&t->shims, shim->address, shim) < 0) {
        shim_unref(shim);
        return err_oom(e);
    }
    *ret = shim;
    return 0;
}

void tasks_expect_exec(struct tasks *t)
{
    cgroup_warm_start(&t->warm);
}

struct connect_job {
    struct tasks *tasks;
    struct shim_endpoint *endpoint;
    struct shim **ret;
    struct err *err;
    int result;
};

static void connect_run(void *arg)
{
    struct connect_job *job = arg;

    job->result = tasks_connect(job->tasks, job->endpoint, job->ret, job->err);
}

int tasks_connect_sync(struct tasks *t, struct shim_endpoint *endpoint, struct shim **ret,
                       struct err *e)
{
    struct connect_job job = {t, endpoint, ret, e, 0};

    loop_run(t->loop, connect_run, &job);
    return job.result;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After a restart: every bundle is a task, which callers find from the start. Its shim is asked with
 * Connect and State, both in one go, so that it wakes up but once, and no shim waits for another;
 * the answers decide about its own tasks alone.
 *
 *     answers, knows the container    LIVE
 *     answers, is still making it     asked again until it has, then LIVE: the client may start or
 *                                     delete it
 *     answers, does not know it       a create or delete was interrupted: shim ended, bundle removed
 *     no socket, refused              LOST: cleaned up, its exit published
 *     does not answer in time         LIVE: a stopped shim is not a dead one; its callers time out
 */
#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/task_images.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

/* How often, and until when, a shim is asked whether it has made its container: longer than it
 * gives the OCI runtime for it. */
#define POLL_MS 50
#define POLL_MAX_MS 150000
#define CONNECT_RETRY_MS 500
/* Between two slices the loop answers clients and takes what shims have said. */
#define ASKED_PER_SLICE 16
/* The search for orphans looks at every process of the machine, which would keep those from running
 * that are waited for: shims, and the clients that get their answers. Creates wait for it, but not
 * for a shim that does not answer. */
#define SEARCH_PAUSE_MS 20
#define SEARCH_LATEST_MS 100

struct recovery {
    struct list link; /* of the unasked */
    struct task *task;
    struct shim *shim;
    Pb__Task__ConnectRequest connect;
    Pb__Task__StateRequest state;
    struct event_timer timer;
    uint64_t since_ms;
    bool has_knocked;
    bool is_decided; /* no more counted in n_undecided */
    int n_awaited;   /* answers to the two calls */
    enum err_code connect_code, state_code;
    bool has_process;
    bool was_started;         /* which the shim has said */
    ProtobufCMessage *stated; /* the answer to State */
    struct workq_job job;
};

static void recovery_free(struct recovery *rec)
{
    pb_free(rec->stated);
    task_unref(rec->task);
    free(rec);
}

static void begin_search(struct event_timer *timer)
{
    tasks_find_orphans(container_of(timer, struct tasks, search_timer));
}

/* Every task comes by here once, when it is known what its shim says or that it says nothing. */
static void recovery_decided(struct recovery *rec)
{
    struct tasks *t = rec->task->tasks;

    if (rec->is_decided)
        return;
    rec->is_decided = true;
    if (--t->n_undecided == 0 && t->search_timer.loop)
        event_timer_arm(t->loop, &t->search_timer, SEARCH_PAUSE_MS, begin_search);
}

/* What the bundle tells of a task whose shim does not. */
static void read_traces(struct recovery *rec)
{
    struct task *task = rec->task;

    if (rec->was_started)
        return;
    /* A container that had a process may have run before we did: then its end is news. */
    if (!rec->has_process && fs_exists(task->bundle.dir_fd, "init.pid"))
        atomic_store(&task->start_seen, true);
    task_images_find(task);
}

/* The container was never made, or is deleted already: nothing is to be reported. */
static void discard_run(struct workq_job *job)
{
    struct recovery *rec = container_of(job, struct recovery, job);
    struct task *task = rec->task;
    struct tasks *t = task->tasks;
    struct task_exit exit;
    struct err e = ERR_INIT;

    log_info("task %s was being made or removed when the daemon ended: removing it", task->key);
    if (rec->shim) {
        task_end_shim(task, rec->shim);
        shim_unref(rec->shim);
    } else {
        task_kill_unreachable(task);
    }
    bool is_clean = task_clean_up(task, &exit, &e) >= 0;
    if (!is_clean)
        log_warn("clean up after task %s: %s", task->key, e.msg);
    task_remove_socket(task);
    task_remove_bundle(task, is_clean);
    tasks_remove(t, task);
    loop_run(t->loop, (void (*)(void *))task_unpark, task);
    recovery_free(rec);
}

static void make_live(struct recovery *rec)
{
    struct task *task = rec->task;

    pthread_mutex_lock(&task->tasks->lock);
    task->shim = rec->shim;
    task->state = atomic_load(&rec->shim->dead) ? TASK_LOST : TASK_LIVE;
    bool lost = task->state == TASK_LOST;
    pthread_mutex_unlock(&task->tasks->lock);
    if (lost)
        task_cleanup_start(task);
    else
        task_unpark_stated(task, TAKE(rec->stated));
    recovery_free(rec);
}

static void recovery_discard(struct recovery *rec);

/* A task whose container never had a process was never reported, and its end is not either. */
static void recovery_lost(struct recovery *rec)
{
    if (!atomic_load(&rec->task->start_seen)) {
        rec->shim = shim_unref(rec->shim);
        recovery_discard(rec);
        return;
    }
    shim_unref(rec->shim);
    tasks_set_state(rec->task->tasks, rec->task, TASK_LOST);
    task_cleanup_start(rec->task);
    recovery_free(rec);
}

static void recovery_discard(struct recovery *rec)
{
    if (workq_submit(rec->task->tasks->pool, &rec->job, discard_run) < 0) {
        log_error("no thread to clean up after task %s", rec->task->key);
        if (rec->shim)
            make_live(rec);
        else
            recovery_free(rec);
    }
}

static void recovery_ask(struct recovery *rec);

static void recovery_again(struct event_timer *timer)
{
    recovery_ask(container_of(timer, struct recovery, timer));
}

/* Both answers are there. Of a container without a process: is there a container at all? */
static void recovery_decide(struct recovery *rec)
{
    read_traces(rec);
    recovery_decided(rec);

    bool is_silent = rec->connect_code != ERR_OK && rec->connect_code != ERR_NOT_FOUND;
    /* One that is to be restored has none before its start. */
    bool is_made = rec->has_process || atomic_load(&rec->task->has_images);

    if (rec->connect_code == ERR_UNAVAILABLE)
        recovery_lost(rec);
    else if (is_silent)
        make_live(rec);
    else if (rec->state_code == ERR_UNAVAILABLE)
        recovery_lost(rec);
    else if (rec->state_code == ERR_NOT_FOUND)
        recovery_discard(rec);
    else if (rec->state_code != ERR_OK || is_made ||
             clock_monotonic_ms() - rec->since_ms > POLL_MAX_MS)
        make_live(rec);
    else
        event_timer_arm(rec->task->tasks->loop, &rec->timer, POLL_MS, recovery_again);
}

static void recovery_stated(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct recovery *rec = userdata;
    const Pb__Task__StateResponse *response = (const Pb__Task__StateResponse *)reply;

    rec->state_code = e ? e->code : ERR_OK;
    rec->has_process = response && response->pid != 0;
    rec->was_started = rec->has_process && response->status != PB__V1TYPES__STATUS__CREATED;
    if (rec->has_process)
        atomic_store(&rec->task->start_seen, rec->was_started);
    pb_free(rec->stated);
    rec->stated = reply;
    if (--rec->n_awaited == 0)
        recovery_decide(rec);
}

static void recovery_connected(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct recovery *rec = userdata;
    const Pb__Task__ConnectResponse *response = (const Pb__Task__ConnectResponse *)reply;

    rec->connect_code = e ? e->code : ERR_OK;
    if (e && e->code == ERR_UNAVAILABLE)
        log_warn("shim of task %s is gone: %s", rec->task->key, e->msg);
    else if (e && e->code != ERR_NOT_FOUND)
        log_warn("shim of task %s does not answer: %s", rec->task->key, e->msg);
    if (response)
        shim_adopt(rec->shim, (pid_t)response->shim_pid);
    if (reply)
        pb_free(reply);
    if (--rec->n_awaited == 0)
        recovery_decide(rec);
}

static void recovery_ask(struct recovery *rec)
{
    uint64_t timeout_ms = rec->task->tasks->options.host.load_timeout_ms;
    struct shim *shim = rec->shim;
    const char *ns = rec->task->ns;

    /* Both may fail at once, and take the recovery's reference with them. */
    shim_ref(shim);
    rec->n_awaited = 2;
    shim_cork(shim);
    shim_call(shim, ns, "Connect", &rec->connect.base, &pb__task__connect_response__descriptor,
              timeout_ms, recovery_connected, rec);
    shim_call(shim, ns, "State", &rec->state.base, &pb__task__state_response__descriptor,
              timeout_ms, recovery_stated, rec);
    shim_uncork(shim);
    shim_unref(shim);
}

static void recovery_connect(struct recovery *rec);

static void recovery_connect_again(struct event_timer *timer)
{
    recovery_connect(container_of(timer, struct recovery, timer));
}

static void recovery_connect(struct recovery *rec)
{
    _cleanup_(shim_endpoint_done) struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;
    struct task *task = rec->task;
    struct tasks *t = task->tasks;
    struct err e = ERR_INIT;

    if (task_find_endpoint(task, &endpoint, &e) >= 0 &&
        tasks_connect(t, &endpoint, &rec->shim, &e) >= 0) {
        recovery_ask(rec);
        return;
    }
    /* A stopped shim that daemons have knocked at too often: it is there, and nothing may befall
     * it. */
    if (e.code == ERR_RESOURCE_EXHAUSTED) {
        if (!rec->has_knocked && strv_push(&t->knocked_at, endpoint.address) < 0)
            log_warn("recover task %s: out of memory", task->key);
        rec->has_knocked = true;
        event_timer_arm(t->loop, &rec->timer, CONNECT_RETRY_MS, recovery_connect_again);
        return;
    }
    log_warn("recover task %s: %s", task->key, e.msg);
    read_traces(rec);
    recovery_decided(rec);
    recovery_lost(rec);
}

static void recovery_begin(struct recovery *rec)
{
    struct task *task = rec->task;
    struct tasks *t = task->tasks;
    struct err e = ERR_INIT;

    rec->since_ms = clock_monotonic_ms();
    if (task_load(task, &e) >= 0) {
        recovery_connect(rec);
        return;
    }
    log_error("recover task %s: %s", task->key, e.msg);
    recovery_decided(rec);
    tasks_remove(t, task);
    task_unpark(task);
    recovery_free(rec);
}

static void ask_slice(struct event_timer *timer)
{
    struct tasks *t = container_of(timer, struct tasks, next_asked);

    for (int i = 0; i < ASKED_PER_SLICE && !list_is_empty(&t->unasked); i++)
        recovery_begin(container_of(list_pop_front(&t->unasked), struct recovery, link));
    if (!list_is_empty(&t->unasked))
        event_timer_arm(t->loop, timer, 0, ask_slice);
    else
        event_timer_arm(t->loop, &t->search_timer,
                        t->n_undecided == 0 ? SEARCH_PAUSE_MS : SEARCH_LATEST_MS, begin_search);
}

static void recover_one(struct tasks *t, const char *ns, const char *id, bool is_linux)
{
    struct err e = ERR_INIT;
    struct recovery *rec = calloc(1, sizeof(*rec));
    struct task *task = rec ? task_new(t, ns, id) : NULL;

    if (task) {
        task->is_linux = is_linux;
        task->state = TASK_RECOVERING;
    }
    if (!task ||
        bundle_load(t->options.root, t->options.state, is_linux ? BUNDLE_LINUX : BUNDLE_V2, ns, id,
                    &task->bundle, &e) < 0 ||
        tasks_add(t, task, &e) < 0) {
        log_error("recover task %s/%s: %s", ns, id, task ? e.msg : "out of memory");
        task_unref(task);
        free(rec);
        return;
    }
    if (exchange_await_end(t->exchange, ns, id) < 0)
        log_warn("recover task %s: its end will not be kept: out of memory", task->key);
    rec->task = task;
    pb__task__connect_request__init(&rec->connect);
    pb__task__state_request__init(&rec->state);
    rec->connect.id = rec->state.id = task->id;
    list_push_back(&t->unasked, &rec->link);
    t->n_undecided++;
}

static void recover_v2(void *userdata, const char *ns, const char *id)
{
    recover_one(userdata, ns, id, false);
}

static void recover_linux(void *userdata, const char *ns, const char *id)
{
    recover_one(userdata, ns, id, true);
}

/* Of a task that is gone: with its work directory goes the socket, which a killed shim leaves. */
static void swept_work(void *userdata, const char *ns, const char *id)
{
    struct tasks *t = userdata;
    _free_ char *address = shim_socket_address(&t->options.host, ns, id);

    if (address)
        shim_socket_remove_dead(str_after_prefix(address, "unix://"));
}

void tasks_end_recovery(struct tasks *t)
{
    event_timer_disarm(&t->next_asked);
    event_timer_disarm(&t->search_timer);
    for (struct list *l; (l = list_pop_front(&t->unasked));) {
        struct recovery *rec = container_of(l, struct recovery, link);
        /* Nobody is there to hear the answers, but the calls are to be let go. */
        tasks_set_state(t, rec->task, TASK_GONE);
        task_unpark(rec->task);
        recovery_free(rec);
    }
}

int tasks_recover(struct tasks *t, struct err *e)
{
    int r = bundle_walk(t->options.state, BUNDLE_V2, recover_v2, t, e);
    if (r >= 0)
        r = bundle_walk(t->options.state, BUNDLE_LINUX, recover_linux, t, e);
    if (r >= 0) {
        tasks_expect_orphans(t);
        event_timer_arm(t->loop, &t->next_asked, 0, ask_slice);
        bundle_sweep_work(t->options.root, t->options.state, BUNDLE_V2, swept_work, t);
        bundle_sweep_work(t->options.root, t->options.state, BUNDLE_LINUX, swept_work, t);
    }
    return r;
}

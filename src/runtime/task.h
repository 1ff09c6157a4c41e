/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task: one container that has a shim, as the daemon knows it. What the task is doing (running,
 * paused, stopped) is asked of the shim each time and never kept here.
 *
 *     CREATING -> LIVE -> (GONE)          Tasks.Create ... Tasks.Delete
 *     RECOVERING -> LIVE                  a bundle found at start whose shim answers
 *     RECOVERING -> LOST -> GONE          a bundle whose shim is dead
 *     LIVE -> LOST -> GONE                the shim died under us: cleaned up, exit published, once
 *
 * The state changes under the registry's lock. Lists of parked calls belong to the loop.
 */
#pragma once

#include <stdatomic.h>

#include "base/list.h"
#include "base/workq.h"
#include "runtime/bundle.h"
#include "runtime/shim.h"
#include "runtime/shim_binary.h"
#include "runtime/shim_launch.h"
#include "runtime/shim_log.h"

enum task_state { TASK_CREATING, TASK_RECOVERING, TASK_LIVE, TASK_LOST, TASK_GONE };
const char *task_state_name(enum task_state state);

struct tasks;
struct linux_cgroup;

struct task {
    atomic_uint refs;
    struct tasks *tasks;
    char *ns;
    char *id;
    char *key; /* "ns/id" */

    enum task_state state;
    bool deleting; /* a Delete is under way: the end of the shim is expected */
    atomic_bool
        start_seen;        /* TaskStart went through the exchange (or the task was found running) */
    atomic_bool exit_seen; /* so did the TaskExit of init */

    struct bundle bundle;
    struct shim_binary binary;
    struct shim *shim; /* set before LIVE */
    char *images_path; /* NULL: not restored, or from elsewhere; task_images.h */
    atomic_bool has_images;
    struct shim_log *log;

    bool is_linux;              /* of runtime v1 */
    struct linux_cgroup *group; /* NULL: not known; set before LIVE, of a restored task on the loop
                                 * when it starts */
    struct shim_log *error_log; /* its shim has two */
    unsigned starting; /* reasons to hold exits back, as a Start under way: task_events.h */
    struct event_post last_look; /* at its control group, once */
    struct list held;
    size_t n_held;

    struct list parked;       /* calls that wait for the end of RECOVERING */
    struct list exit_waiters; /* Waits whose shim died: answered by the cleanup */
    struct workq_job job;     /* the cleanup */
    struct event_post post;
};

struct task *task_new(struct tasks *tasks, const char *ns, const char *id);
struct task *task_ref(struct task *t);
struct task *task_unref(struct task *t); /* takes NULL; returns NULL */
static inline void task_unrefp(struct task **t)
{
    task_unref(*t);
}

/* [loop] Calls the task's shim; answers through fn, always. A task under recovery answers after it.
 * The request must stay valid until then. NOT_FOUND "task X not found" when there is no shim to
 * ask. */
void task_call(struct task *t, const char *method, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms, shim_reply_fn fn,
               void *userdata);
/* [loop] Wait: survives the death of the shim, then the answer is what the cleanup found. request
 * is a Pb__Task__WaitRequest, the reply a Pb__Task__WaitResponse. */
void task_wait(struct task *t, const ProtobufCMessage *request, shim_reply_fn fn, void *userdata);

/* [loop] For the registry: lets parked calls go; answers the waiters of a lost task. */
void task_unpark(struct task *t);
/* The same, with what the shim has just said of init (taken; NULL: nothing): that answers a State or
 * List which waited for it, and the shim is not asked the same again. */
void task_unpark_stated(struct task *t, ProtobufCMessage *state);
void task_answer_waiters(struct task *t, const struct task_exit *exit);

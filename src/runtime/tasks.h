/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All tasks of the daemon, and what makes and ends them.
 *
 * Blocking calls (tasks_create, tasks_delete) are for pool threads; look-ups may come from any
 * thread. The one lock guards the map and the states of tasks; it is never held across disk,
 * processes or shims.
 */
#pragma once

#include "base/any.h"
#include "base/workq.h"
#include "runtime/exchange.h"
#include "runtime/linux_launch.h"
#include "runtime/task.h"
#include "task.v2.pb-c.h"

struct tasks_options {
    const char *root;
    const char *state;
    struct shim_host host;
    const char *own_shim;          /* path of our shim */
    const char *shim;              /* configured in its place, or NULL */
    const char *oci_runtime;       /* configured OCI runtime, or NULL */
    const char *daemon_dir;        /* where foreign shims are looked for besides PATH */
    uint64_t shutdown_timeout_ms;  /* io.containerd.timeout.shim.shutdown */
    struct linux_options linux_v1; /* io.containerd.runtime.v1.linux */
};

/* Everything is borrowed for the life of the registry. */
int tasks_new(struct event_loop *loop, struct workq *pool, struct exchange *exchange,
              const struct tasks_options *options, struct tasks **ret, struct err *e);
/* [loop] The daemon ends: connections to shims are closed, which answers every call that waits for
 * one. */
void tasks_detach(struct tasks *t);
/* On the loop, after the pool has ended. Shims are left running. */
struct tasks *tasks_free(struct tasks *t);

/* [loop thread, before or while it runs] Finds every bundle. Their shims are asked in the turns that
 * follow, without waiting for one another; calls that come meanwhile wait for their own task alone. */
int tasks_recover(struct tasks *t, struct err *e);

/* A reference, or NULL: unknown, or still being created. */
struct task *tasks_find(struct tasks *t, const char *ns, const char *id);
/* References to all tasks of a namespace (NULL: of all) that are not being created, sorted by id.
 * The caller unrefs each and frees the array. */
int tasks_list(struct tasks *t, const char *ns, struct task ***ret, size_t *ret_n);
size_t tasks_count(struct tasks *t);
enum task_state tasks_state(struct tasks *t, const struct task *task);
/* True when the death of its shim leads (or has led) to a cleanup that answers task_wait(). */
bool tasks_will_clean_up(struct tasks *t, const struct task *task);
/* [not the loop] Kills the shim of a task that is lost, in case it is alive, or of one that is
 * stuck: then the cleanup of a dead shim follows. */
void task_kill_unreachable(struct task *task);
/* The shim of a LIVE task, referenced; NULL otherwise. */
struct shim *tasks_live_shim(struct tasks *t, const struct task *task);

struct task_create {
    const char *ns;
    const char *runtime;      /* name of the container's runtime */
    const char *runtime_path; /* of the request, overrides; or NULL */
    const struct any *spec;
    const struct any *options; /* of the task, else of the container; may be empty */
    const struct any *task_options, *container_options; /* each by itself, for runtime v1 */
    Pb__Task__CreateTaskRequest
        *request; /* id, rootfs, stdio, checkpoint filled; the rest is filled here */
    /* NULL, or puts what the task is restored from into a directory of the task's own, which
     * becomes the request's checkpoint. */
    int (*fill_images)(void *userdata, int dir_fd, struct err *e);
    void *fill_userdata;
};
/* Makes bundle, shim and container. ALREADY_EXISTS "task X: already exists". On failure nothing is
 * left. */
int tasks_create(struct tasks *t, const struct task_create *create, uint32_t *ret_pid,
                 struct err *e);
/* [any thread] A process is about to be added to a running container: what cgroup_warm.h does for
 * the first one of a container, for this one. Waits for nothing. */
void tasks_expect_exec(struct tasks *t);
/* Deletes a stopped task and everything that belongs to it. */
int tasks_delete(struct tasks *t, struct task *task, struct task_exit *ret, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of struct tasks, for the files that make, end and recover tasks. */
#pragma once

#include <pthread.h>

#include "base/map.h"
#include "oci/config.h"
#include "oci/runtime_choice.h"
#include "runtime/cgroup_warm.h"
#include "runtime/task_events.h"
#include "runtime/tasks.h"

struct tasks {
    struct event_loop *loop;
    struct workq *pool;
    struct exchange *exchange;
    struct tasks_options options;
    struct cgroup_warm warm;
    struct subscription *watch; /* sees start and exit events go by */
    atomic_bool detached;       /* the end of a connection says nothing about its shim any more */

    pthread_mutex_t lock;
    struct map by_key; /* "ns/id" -> struct task, one reference each */
    struct late_exits late;

    pthread_mutex_t facts_lock;
    struct runtime_facts facts; /* about the OCI runtimes of this machine */

    struct map shims;  /* [loop] address -> struct shim, no reference: removed when it dies */
    struct list dying; /* [loop] dead shims (dying) whose process has not been seen to end yet */
    /* [loop] while orphans are looked for: addresses of shims that are there, but accept no
     * connection */
    char **knocked_at;

    /* [loop] Recovery. */
    struct list unasked;             /* those whose shims are still to be asked */
    size_t n_undecided;              /* tasks about which no shim has answered yet */
    struct event_timer next_asked;   /* a slice of the unasked */
    struct event_timer search_timer; /* armed when all are asked, until the search begins */

    struct workq_job search; /* for orphans */
    bool is_searching;       /* under lock; from before the search begins */
    pthread_cond_t searched; /* with lock */
};

/* Under no lock. 0, or ALREADY_EXISTS `task X: already exists`. Takes a reference. */
int tasks_add(struct tasks *t, struct task *task, struct err *e);
/* True if it was still registered; the registry's reference is dropped. */
bool tasks_remove(struct tasks *t, struct task *task);
void tasks_set_state(struct tasks *t, struct task *task, enum task_state state);

/* [loop] From tasks_recover() on names may be those of orphans. */
void tasks_expect_orphans(struct tasks *t);
/* [loop] Every shim that a bundle leads to is connected: begins to look for shims and sockets that
 * none leads to (task_orphans.c). */
void tasks_find_orphans(struct tasks *t);
/* [loop] The registry goes: forgets what is not recovered yet. */
void tasks_end_recovery(struct tasks *t);
/* [not the loop] Until then a name may be that of an orphan. */
void tasks_wait_for_orphans(struct tasks *t);

/* [loop] A shim that is connected already, or a new connection. A reference. */
int tasks_connect(struct tasks *t, struct shim_endpoint *endpoint, struct shim **ret,
                  struct err *e);
/* [not the loop] The same. */
int tasks_connect_sync(struct tasks *t, struct shim_endpoint *endpoint, struct shim **ret,
                       struct err *e);

/* [any thread] Its shim says that a container of its name was deleted. When that was its own, and
 * the daemon that had asked for it died before it was done, the rest of the Delete follows. */
void task_check_deleted(struct task *task);

/* The cleanup of a task whose shim is gone: `delete` of the shim, events, waiters, bundle. */
void task_cleanup_start(struct task *task);
/* Removes a socket that its shim left behind: only below the socket directory, and only if nobody
 * listens. After the clean-up: shims of 1.6 fail to do theirs where the socket is gone. */
void shim_socket_remove(const struct tasks *t, const char *address);
/* Removes the file of a socket, if nobody listens on it. Not one that may be in the making. */
void shim_socket_remove_dead(const char *path);
void task_remove_socket(struct task *task);
/* Where a shim of the task's group listens by default, with something behind the group's name. The
 * caller frees. NULL: out of memory. */
char *task_group_address(struct task *task, const char *suffix);
/* Where the shim of a task's bundle listens; without a file that says so (the daemon died in
 * between), where ours would. */
int task_find_endpoint(struct task *task, struct shim_endpoint *ret, struct err *e);
/* [loop] Of a task whose bundle is open: what the next calls and the cleanup need of it. The bundle
 * does not say whether there is a process; see read_traces() in task_recover.c. */
int task_load(struct task *task, struct err *e);
/* Tells a shim to end when it has no container left; a shim of runtime v1 is killed. NULL: the shim
 * of a bundle of v1 that could not be connected to. */
void task_end_shim(struct task *task, struct shim *shim);
/* Removes what a shim left of its container: its `delete` action, that of our shim when somebody
 * else's fails, or that of the OCI runtime for v1. */
int task_clean_up(struct task *task, struct task_exit *ret, struct err *e);
/* The bundle and its work directory. After a cleanup that failed (is_clean false), with shim_debug
 * of runtime v1 set, they are kept for whoever looks for the reason; the next daemon cleans up
 * again. */
void task_remove_bundle(struct task *task, bool is_clean);

/* The parts of Create that all runtimes share. */

/* Takes the shim. */
void task_go_live(struct task *task, struct shim *shim);
/* This daemon ends, and has let go of its shims: what is half made stays as it is, and the next one
 * finds it by its bundle. */
bool tasks_are_left(const struct tasks *t);
/* The container could not be made: what the shim may have of it goes, then the shim (NULL: could
 * not be connected to). */
void task_abandon(struct task *task, struct shim *shim, struct shim_endpoint *endpoint);
/* The OCI runtime for a container whose options name none. The caller frees. */
int task_name_runtime(struct tasks *t, const struct oci_config *config, char **ret, struct err *e);

/* Runtime v1: linux_create.c. */

/* True when it runs containers of this runtime name. */
bool linux_runs(const struct tasks *t, const char *runtime);
int linux_create(struct tasks *t, struct task *task, const struct task_create *create,
                 uint32_t *ret_pid, struct err *e);
void linux_open_logs(struct task *task);

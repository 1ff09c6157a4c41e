/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of struct tasks, for the files that make, end and recover tasks. */
#pragma once

#include <pthread.h>

#include "base/map.h"
#include "oci/runtime_choice.h"
#include "runtime/cgroup_warm.h"
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

    pthread_mutex_t facts_lock;
    struct runtime_facts facts; /* about the OCI runtimes of this machine */

    struct map shims; /* [loop] address -> struct shim, no reference: removed when it dies */
};

/* Under no lock. 0, or ALREADY_EXISTS `task X: already exists`. Takes a reference. */
int tasks_add(struct tasks *t, struct task *task, struct err *e);
/* True if it was still registered; the registry's reference is dropped. */
bool tasks_remove(struct tasks *t, struct task *task);
void tasks_set_state(struct tasks *t, struct task *task, enum task_state state);

/* [loop] A shim that is connected already, or a new connection. A reference. */
int tasks_connect(struct tasks *t, struct shim_endpoint *endpoint, struct shim **ret, struct err *e);
/* [not the loop] The same. */
int tasks_connect_sync(struct tasks *t, struct shim_endpoint *endpoint, struct shim **ret,
                       struct err *e);

/* The cleanup of a task whose shim is gone: `delete` of the shim, events, waiters, bundle. */
void task_cleanup_start(struct task *task);
/* Removes a socket that its shim left behind. Only below the socket directory. */
void shim_socket_remove(const struct tasks *t, const char *address);
/* Tells a shim to end when it has no container left. */
void shim_shutdown(struct tasks *t, struct shim *shim, const char *ns, const char *id);

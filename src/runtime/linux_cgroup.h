/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control group of a task of runtime v1. Its shim counts nothing and watches nothing: metrics
 * are read here, and kills for want of memory are published from here.
 */
#pragma once

#include "cgroup/cgroup.h"
#include "cgroup/oom.h"
#include "runtime/shim.h"

struct task;

struct linux_cgroup {
    struct task *task; /* borrowed: its owner */
    struct cgroup cgroup;
    struct oom oom; /* [loop] */
};

/* Of the group in which the container's init is; pid 0: of the group noted in the bundle. NULL,
 * with a warning, when it cannot be found: a task runs without it. */
struct linux_cgroup *linux_cgroup_new(struct task *task, pid_t pid);
/* [loop] */
void linux_cgroup_watch(struct linux_cgroup *g);
/* [loop] Publishes what was not seen yet. */
void linux_cgroup_look(struct linux_cgroup *g);
/* [loop] The same, and watches no longer. Takes NULL. */
void linux_cgroup_unwatch(struct linux_cgroup *g);
/* Takes NULL. Returns NULL. On the loop, or after linux_cgroup_unwatch(). */
struct linux_cgroup *linux_cgroup_free(struct linux_cgroup *g);

/* [loop] Answers through fn, on the loop, like the method Stats of a v2 shim. */
void linux_cgroup_stats(struct task *task, shim_reply_fn fn, void *userdata);

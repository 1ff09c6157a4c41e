/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watching a container for kills by the kernel for want of memory.
 *
 * cgroup v1: an eventfd registered on memory.oom_control. cgroup v2: memory.events, whose changes
 * kernfs reports to poll(2) as EPOLLPRI, so no inotify instance (128 a user) is spent. Both carry
 * an oom_kill counter, which decides: a wake-up without a new kill reports nothing.
 */
#pragma once

#include "base/event.h"
#include "cgroup/cgroup.h"

struct oom;
typedef void (*oom_fn)(struct oom *oom);

struct oom {
    struct event_fd source;
    struct event_timer timer;
    int fd;           /* eventfd, or memory.events; -EBADF: not watching */
    char *file;       /* with the oom_kill line */
    uint64_t n_kills; /* reported so far */
    oom_fn fn;
};
#define OOM_INIT     \
    {                \
        .fd = -EBADF \
    }

/* No memory controller is no error: nothing is watched then. 0 or negative errno. */
int oom_watch(struct oom *oom, struct event_loop *loop, const struct cgroup *c, oom_fn fn);
/* Looks once more, and calls fn if there was a kill not yet reported. */
void oom_check(struct oom *oom);
void oom_done(struct oom *oom);

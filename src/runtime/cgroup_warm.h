/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hides the wait of the first cgroup migration on an idle host.
 *
 * Writing a pid to cgroup.procs takes the kernel's threadgroup lock for writing, which waits for an
 * RCU grace period (7 to 15 ms) unless somebody took it within the last few milliseconds. The OCI
 * runtime pays that in the middle of `create` and of `exec`. A migration of the daemon into the
 * cgroup in which it already is moves nothing, but takes the same lock: begun when a Create or an
 * Exec arrives, it waits while shim and OCI runtime are being started.
 */
#pragma once

#include <stdatomic.h>

#include "base/workq.h"

struct cgroup_warm {
    struct workq *pool; /* borrowed */
    int procs_fd;       /* cgroup.procs of our own cgroup; -EBADF: there is none we may write to */
    atomic_bool busy;
    atomic_ullong last_ms;
    struct workq_job job;
};

/* Never fails: without a cgroup to write to it does nothing. */
void cgroup_warm_init(struct cgroup_warm *w, struct workq *pool);
/* The pool must be free of its job: after workq_free(). */
void cgroup_warm_done(struct cgroup_warm *w);
/* [any thread] Starts one, unless one is under way or was a moment ago. */
void cgroup_warm_start(struct cgroup_warm *w);

/* SPDX-License-Identifier: Apache-2.0 */
/* The end of init, which is told after those of all execs, and what its deletion undoes. */
#include <sys/mount.h>

#include "base/log.h"
#include "shim/container.h"

/* How long init's end waits for those of execs which do not come. */
#define EXECS_END_TIMEOUT_MS 10000
#define UNMOUNT_RETRY_MS 10
#define UNMOUNT_TRIES 20

static bool has_live_execs(struct container *c)
{
    MAP_FOREACH (entry, &c->execs) {
        const struct process *p = entry->value;
        bool is_told = p->state == PROCESS_STOPPED || p->state == PROCESS_DELETED;
        if (p->is_launching || child_is_alive(&p->child) || (p->has_ended && !is_told))
            return true;
    }
    return false;
}

static void tell_init_end(struct container *c)
{
    container_ref(c);
    event_timer_disarm(&c->end_timer);
    c->init_end_pending = false;
    process_publish_end(c->init);
    container_unref(c);
}

static void try_to_tell_init_end(struct container *c)
{
    if (c->init_end_pending && !has_live_execs(c) && !process_is_held(c->init))
        tell_init_end(c);
}

static void on_end_timer(struct event_timer *timer)
{
    struct container *c = container_of(timer, struct container, end_timer);

    log_warn("container %s has ended, but not all processes that were added to it", c->id);
    tell_init_end(c);
}

void container_init_ended(struct container *c)
{
    if (!c->init_end_pending) {
        c->init_end_pending = true;
        oom_check(&c->oom);
        if (process_is_paused(c->init) && cgroup_is_known(&c->cgroup))
            cgroup_thaw(&c->cgroup);
        if (!c->has_private_pids && cgroup_is_known(&c->cgroup) && cgroup_kill(&c->cgroup) < 0)
            log_warn("container %s: what is left of it could not be killed", c->id);
        if (has_live_execs(c))
            event_timer_arm(c->shim->loop, &c->end_timer, EXECS_END_TIMEOUT_MS, on_end_timer);
    }
    try_to_tell_init_end(c);
}

void container_exec_ended(struct container *c)
{
    try_to_tell_init_end(c);
}

static void on_unmount_again(struct event_timer *timer);

static void unmount_rootfs(struct op *op)
{
    struct container *c = op->process->container;
    int r = 0;

    if (c->n_mounts == 1)
        r = mount_unmount_once(c->rootfs, op->tries < UNMOUNT_TRIES ? 0 : MNT_DETACH);
    else if (c->n_mounts > 1)
        r = mount_unmount_below(c->rootfs);
    if (r == -EBUSY && op->tries++ < UNMOUNT_TRIES) {
        event_timer_arm(c->shim->loop, &op->timer, UNMOUNT_RETRY_MS, on_unmount_again);
        return;
    }
    if (r < 0)
        log_warn("failed to unmount %s: %s", c->rootfs, err_strerror(r));
    op->launched(op);
    container_forget(c);
}

static void on_unmount_again(struct event_timer *timer)
{
    unmount_rootfs(container_of(timer, struct op, timer));
}

void container_release(struct container *c, struct op *op, op_fn fn)
{
    op->launched = fn;
    op->tries = 0;
    if (cgroup_is_known(&c->cgroup) && (!c->has_private_pids || c->lost_runtime))
        cgroup_remove(&c->cgroup); /* what the runtime found busy when it deleted */
    unmount_rootfs(op);
}

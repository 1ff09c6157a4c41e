/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/reaper.h"

#include <sys/wait.h>

#include "base/orphans.h"

void reaper_init(struct reaper *r, struct event_loop *loop)
{
    *r = (struct reaper){.loop = loop, .signal_fd = -EBADF};
    list_init(&r->children);
}

void reaper_forget(struct child *child)
{
    if (!child->ended)
        return;
    event_fd_remove(&child->source);
    list_remove(&child->link);
    child->ended = NULL;
    proc_done(&child->proc);
}

void reaper_done(struct reaper *r)
{
    struct child *child, *next;

    LIST_FOREACH_SAFE (child, next, &r->children, link)
        reaper_forget(child);
}

/* Like proc_reap(), and leaves the zombie. */
static int peek(const struct proc *p, int *ret_status)
{
    siginfo_t info = {};

    if (waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return -errno;
    if (info.si_pid == 0)
        return 0;
    *ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return 1;
}

/* Takes the status if the child has ended. */
static void collect_child(struct child *child)
{
    _cleanup_(proc_done) struct proc zombie = PROC_NULL;
    int status = 0;
    int r =
        child->reap_last ? peek(&child->proc, &status) : proc_reap(&child->proc, false, &status);

    if (r == 0)
        return;
    /* Somebody else's waitid(2) cannot happen in one thread; should the kernel say so all the same,
     * the process is gone, and gone by a signal is the honest guess. */
    if (r < 0)
        status = 128 + SIGKILL;
    child_ended_fn ended = child->ended;
    if (child->reap_last) {
        zombie = child->proc;
        child->proc = (struct proc)PROC_NULL;
    }
    reaper_forget(child);
    ended(child, status);
    if (zombie.pidfd >= 0)
        proc_reap(&zombie, false, &status);
}

static void on_pidfd(struct event_fd *source, _unused_ uint32_t events)
{
    collect_child(container_of(source, struct child, source));
}

int reaper_watch(struct reaper *r, struct child *child, struct proc *p, child_ended_fn ended)
{
    int e = event_fd_add(r->loop, &child->source, p->pidfd, EPOLLIN, on_pidfd);
    if (e < 0)
        return e;
    child->proc = *p;
    *p = (struct proc)PROC_NULL;
    child->ended = ended;
    list_push_back(&r->children, &child->link);
    return 0;
}

void reaper_hold(struct reaper *r)
{
    r->holds++;
}

void reaper_release(struct reaper *r)
{
    if (--r->holds == 0)
        reaper_collect(r);
}

static struct child *find_child(struct reaper *r, pid_t pid)
{
    struct child *child;

    LIST_FOREACH (child, &r->children, link)
        if (child->proc.pid == pid)
            return child;
    return NULL;
}

void reaper_collect(struct reaper *r)
{
    while (r->holds == 0) {
        siginfo_t info = {};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return;
        struct child *child = find_child(r, info.si_pid);
        if (child)
            collect_child(child);
        else if (!orphans_reap(info.si_pid))
            return;
    }
}

bool reaper_knows(struct reaper *r, pid_t pid)
{
    return find_child(r, pid) || orphans_are_own(pid);
}

int reaper_adopt(struct reaper *r, pid_t pid, struct proc *ret)
{
    _cleanup_(proc_done) struct proc p = PROC_NULL;
    siginfo_t info = {};

    if (reaper_knows(r, pid))
        return -EEXIST;
    int e = proc_open(pid, &p);
    if (e < 0)
        return e;
    if (waitid(P_PIDFD, (id_t)p.pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return -errno;
    *ret = p;
    p = (struct proc)PROC_NULL;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends of all our children. A shim is a subreaper, so besides the processes it started or was
 * handed (struct child, watched by pidfd) it inherits orphans of containers that share its pid
 * namespace; those are reaped on SIGCHLD and forgotten. Where other threads start children too,
 * base/orphans.h tells which are whose.
 *
 * A process the OCI runtime leaves to us may end before we have learned its pid. It then waits as a
 * zombie, which an orphan's reaping must not take: while a call is under way that will hand us a
 * process, the reaper is held and takes only children it knows.
 */
#pragma once

#include "base/event.h"
#include "base/proc.h"

struct child;
/* status: exit code or 128 + signal. The child is no longer watched and its proc is closed. */
typedef void (*child_ended_fn)(struct child *child, int status);

/* Embedded in its owner. */
struct child {
    struct proc proc;
    struct event_fd source;
    struct list link;
    child_ended_fn ended; /* NULL while not watched */
    bool reap_last;       /* after ended: its pid, and its group's, cannot have passed on by then */
};
#define CHILD_INIT        \
    {                     \
        .proc = PROC_NULL \
    }

struct reaper {
    struct event_loop *loop;
    int signal_fd; /* borrowed: SIGCHLD */
    struct list children;
    unsigned holds;
};

void reaper_init(struct reaper *r, struct event_loop *loop);
/* Forgets every child; they go on. */
void reaper_done(struct reaper *r);
/* Watches p, whose ownership moves on success. 0 or negative errno. */
int reaper_watch(struct reaper *r, struct child *child, struct proc *p, child_ended_fn ended);
/* No further callback; the process goes on and is reaped as an orphan. */
void reaper_forget(struct child *child);
/* Whether it is watched, that is, not known to have ended. */
static inline bool child_is_alive(const struct child *child)
{
    return child->ended != NULL;
}
void reaper_hold(struct reaper *r);
void reaper_release(struct reaper *r);
/* SIGCHLD came; or one that orphans_reap() left alone may be gone by now. */
void reaper_collect(struct reaper *r);
/* Whether pid is a process that is watched, or that another thread has started. */
bool reaper_knows(struct reaper *r, pid_t pid);
/* A proc of pid if that is a child of ours, ended or not, which is not watched yet: what a runtime
 * says is believed only then. -ESRCH, -ECHILD, -EEXIST. */
int reaper_adopt(struct reaper *r, pid_t pid, struct proc *ret);

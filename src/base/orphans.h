/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orphans in a process of several threads. A child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER)
 * becomes the parent of everything its descendants leave behind and must reap it, but wait(2) for
 * "any child" would also take the exit status of one that another thread has started and waits for.
 *
 * So from orphans_inherit() on proc_spawn() notes what it starts, and proc_reap() and proc_done()
 * strike it out; whatever has ended and is not noted is an orphan. No lock is held while a program
 * is being started: an ended child that nobody knows is left alone until no start is under way.
 *
 * One state a process, as the kernel has it. Off, it costs nothing.
 */
#pragma once

#include <signal.h>

#include "base/attr.h"

/* Makes this process a subreaper. Before other threads and the first child. settled: an ended child
 * that orphans_reap() left alone may be one no longer; called by any thread, under no lock of ours.
 * 0 or negative errno. */
int orphans_inherit(void (*settled)(void *userdata), void *userdata);
/* The callback is not called any more, nor is it running, when this returns. Orphans are still
 * inherited. */
void orphans_leave(void);
/* pid: an ended child, named by waitid(2) with WNOWAIT. Reaps it unless it is none of the orphans:
 * then false, and `settled` follows. One thread at a time. */
bool orphans_reap(pid_t pid);
/* True when pid is a child that was started here and is not reaped yet. */
bool orphans_are_own(pid_t pid);

/*
 * For proc_spawn(), proc_reap() and proc_done().
 */

/* Before a program is started: 0 or -ENOMEM. */
int orphans_start_begins(void);
/* pid 0: no process came of it. */
void orphans_start_ended(pid_t pid);
/* Reaps one that was started here, and strikes it out. As waitid(2) with P_PIDFD and WNOHANG. */
int orphans_reap_own(pid_t pid, int pidfd, siginfo_t *ret);
/* Nobody here will reap it: it is an orphan from now on. */
void orphans_disown(pid_t pid);

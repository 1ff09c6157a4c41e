/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A child in the manner of vfork(2): it borrows our memory and holds this thread until it execs or
 * ends, on a stack of its own. Starting it costs the same however big we are, and what it leaves in
 * *arg is there when the call returns. In exchange fn may only make system calls: no allocation, no
 * locks. All signals are blocked in it, so that no handler of ours runs in the shared memory.
 */
#pragma once

#include "base/attr.h"

/*
 * Put on fn and all it calls. What the child does to its own table of fds must go past the wrappers
 * of libc, by syscall(2): several are cancellation points, and the thread sanitizer would take the
 * child's fds for ours.
 */
#define _vchild_ __attribute__((no_sanitize("thread")))

/* end_signal: sent to us at its end, SIGCHLD or 0 (then only a wait with __WCLONE sees it).
 * ret_pidfd may be NULL. Returns the pid or negative errno. Any thread may call it. */
pid_t vchild_start(int (*fn)(void *arg), void *arg, int end_signal, int *ret_pidfd);

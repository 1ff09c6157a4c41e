/* SPDX-License-Identifier: Apache-2.0 */
#include "base/vchild.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#define STACK_BYTES (32 * 1024)

/* The thread sanitizer takes over clone() and treats it as a fork of the whole process; the other
 * name of the same function is left alone. */
#if HAS_TSAN
int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
#define clone __clone
#endif

pid_t vchild_start(int (*fn)(void *arg), void *arg, int end_signal, int *ret_pidfd)
{
    int flags = CLONE_VM | CLONE_VFORK | end_signal | (ret_pidfd ? CLONE_PIDFD : 0);
    sigset_t all, before;
    int pidfd = -EBADF;

    /* A mapping, not part of our stack: threads have small ones, and sanitizers watch frames. */
    void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pid_t pid = neg_errno(clone(fn, (char *)stack + STACK_BYTES, flags, arg, &pidfd));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(stack, STACK_BYTES);
    if (pid > 0 && ret_pidfd)
        *ret_pidfd = pidfd;
    return pid;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/orphans.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Not in every libc header; waitid(2). */
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static struct {
    bool on; /* set before there are threads */
    pthread_mutex_t lock;
    pid_t *own; /* children that were started here, in no order */
    size_t n_own, allocated;
    unsigned starting;   /* starts under way, whose children are not noted yet */
    bool left_one_alone; /* since `settled` was called last */
    unsigned calling;    /* of `settled` */
    pthread_cond_t called;
    void (*settled)(void *userdata);
    void *userdata;
} orphans = {.lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};

int orphans_inherit(void (*settled)(void *userdata), void *userdata)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return -errno;
    orphans.settled = settled;
    orphans.userdata = userdata;
    orphans.on = true;
    return 0;
}

void orphans_leave(void)
{
    pthread_mutex_lock(&orphans.lock);
    orphans.settled = NULL;
    while (orphans.calling > 0)
        pthread_cond_wait(&orphans.called, &orphans.lock);
    pthread_mutex_unlock(&orphans.lock);
}

/* With the lock held, which it gives up. */
static void unlock_and_tell(void)
{
    void (*settled)(void *userdata) = NULL;

    if (orphans.left_one_alone && orphans.starting == 0 && (settled = orphans.settled)) {
        orphans.left_one_alone = false;
        orphans.calling++;
    }
    pthread_mutex_unlock(&orphans.lock);
    if (!settled)
        return;
    settled(orphans.userdata);
    pthread_mutex_lock(&orphans.lock);
    orphans.calling--;
    pthread_cond_broadcast(&orphans.called);
    pthread_mutex_unlock(&orphans.lock);
}

/* With the lock held. NULL: not noted. */
static pid_t *find(pid_t pid)
{
    for (size_t i = 0; i < orphans.n_own; i++)
        if (orphans.own[i] == pid)
            return &orphans.own[i];
    return NULL;
}

static void strike_out(pid_t pid)
{
    pid_t *own = find(pid);

    if (own)
        *own = orphans.own[--orphans.n_own];
}

bool orphans_reap(pid_t pid)
{
    siginfo_t info;

    pthread_mutex_lock(&orphans.lock);
    bool is_ours = orphans.starting > 0 || find(pid);
    if (is_ours)
        orphans.left_one_alone = true;
    else
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG);
    pthread_mutex_unlock(&orphans.lock);
    return !is_ours;
}

bool orphans_are_own(pid_t pid)
{
    pthread_mutex_lock(&orphans.lock);
    bool is_own = find(pid) != NULL;
    pthread_mutex_unlock(&orphans.lock);
    return is_own;
}

int orphans_start_begins(void)
{
    int r = 0;

    if (!orphans.on)
        return 0;
    pthread_mutex_lock(&orphans.lock);
    /* Room for all that are under way: afterwards it is too late to fail. */
    size_t wanted = orphans.n_own + orphans.starting + 1;
    if (wanted > orphans.allocated) {
        size_t n = MAX_OF(2 * orphans.allocated, (size_t)16);
        pid_t *own = reallocarray(orphans.own, n, sizeof(*own));
        if (own) {
            orphans.own = own;
            orphans.allocated = n;
        } else {
            r = -ENOMEM;
        }
    }
    if (r == 0)
        orphans.starting++;
    pthread_mutex_unlock(&orphans.lock);
    return r;
}

void orphans_start_ended(pid_t pid)
{
    if (!orphans.on)
        return;
    pthread_mutex_lock(&orphans.lock);
    orphans.starting--;
    if (pid > 0)
        orphans.own[orphans.n_own++] = pid;
    unlock_and_tell();
}

int orphans_reap_own(pid_t pid, int pidfd, siginfo_t *ret)
{
    if (!orphans.on)
        return waitid((idtype_t)P_PIDFD, (id_t)pidfd, ret, WEXITED | WNOHANG);
    /* Together: between the two the number may become another child's. */
    pthread_mutex_lock(&orphans.lock);
    int r = waitid((idtype_t)P_PIDFD, (id_t)pidfd, ret, WEXITED | WNOHANG);
    int error = errno;
    if (r == 0 && ret->si_pid != 0) {
        strike_out(pid);
        unlock_and_tell();
    } else {
        pthread_mutex_unlock(&orphans.lock);
    }
    errno = error;
    return r;
}

void orphans_disown(pid_t pid)
{
    if (!orphans.on)
        return;
    pthread_mutex_lock(&orphans.lock);
    strike_out(pid);
    unlock_and_tell();
}

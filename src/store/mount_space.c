/* SPDX-License-Identifier: Apache-2.0 */
#include "store/mount_space.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

#include "base/workq.h"

struct job {
    mount_space_fn fn;
    void *userdata;
    struct err *e;
    int result;
};

static void *run(void *arg)
{
    struct job *job = arg;
    int r;

    r = neg_errno(unshare(CLONE_NEWNS));
    if (r >= 0) /* slave: unmounts of the host still arrive, so that nothing here keeps its mounts
                   busy */
        r = neg_errno(mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL));
    if (r < 0)
        job->result = err_errno(job->e, r, "make a mount namespace");
    else
        job->result = job->fn(job->userdata, job->e);
    return NULL;
}

int mount_space_run(mount_space_fn fn, void *userdata, struct err *e)
{
    struct job job = {.fn = fn, .userdata = userdata, .e = e};
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int r;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKQ_STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attr, run, &job);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (r != 0)
        return err_errno(e, -r, "start a thread");
    pthread_join(thread, NULL);
    return job.result;
}

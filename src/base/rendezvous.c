/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rendezvous.h"

void rendezvous_signal(struct rendezvous *r)
{
    pthread_mutex_lock(&r->lock);
    r->done = true;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->lock);
}

void rendezvous_wait(struct rendezvous *r)
{
    pthread_mutex_lock(&r->lock);
    while (!r->done)
        pthread_cond_wait(&r->cond, &r->lock);
    pthread_mutex_unlock(&r->lock);
    pthread_cond_destroy(&r->cond);
    pthread_mutex_destroy(&r->lock);
}

struct loop_job {
    struct event_post post;
    struct rendezvous meet;
    void (*fn)(void *arg);
    void *arg;
};

static void loop_job_run(struct event_post *post)
{
    struct loop_job *job = container_of(post, struct loop_job, post);

    job->fn(job->arg);
    rendezvous_signal(&job->meet);
}

void loop_run(struct event_loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_job job = {.meet = RENDEZVOUS_INIT, .fn = fn, .arg = arg};

    event_loop_post(loop, &job.post, loop_job_run);
    rendezvous_wait(&job.meet);
}

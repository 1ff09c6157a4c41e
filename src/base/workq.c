/* SPDX-License-Identifier: Apache-2.0 */
#include "base/workq.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "base/attr.h"

struct workq {
    pthread_mutex_t lock;
    pthread_cond_t work;  /* a job came, or the queue is ending */
    pthread_cond_t ended; /* a thread has left */
    struct list jobs;
    unsigned n_jobs;
    unsigned n_threads, n_idle, max_threads;
    bool ending;
};

int workq_new(unsigned max_threads, struct workq **ret)
{
    pthread_condattr_t attr;

    if (max_threads == 0)
        return -EINVAL;
    struct workq *q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    q->max_threads = max_threads;
    list_init(&q->jobs);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->ended, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->work, &attr);
    pthread_condattr_destroy(&attr);
    *ret = q;
    return 0;
}

void workq_end(struct workq *q)
{
    pthread_mutex_lock(&q->lock);
    q->ending = true;
    pthread_cond_broadcast(&q->work);
    while (q->n_threads > 0)
        pthread_cond_wait(&q->ended, &q->lock);
    pthread_mutex_unlock(&q->lock);
}

struct workq *workq_free(struct workq *q)
{
    if (!q)
        return NULL;
    workq_end(q);
    pthread_cond_destroy(&q->ended);
    pthread_cond_destroy(&q->work);
    pthread_mutex_destroy(&q->lock);
    free(q);
    return NULL;
}

/* Waits for a job with the lock held. NULL: this thread is to leave. */
static struct workq_job *next_job(struct workq *q)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKQ_IDLE_MS / 1000;
    until.tv_nsec += WORKQ_IDLE_MS % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }

    int r = 0;
    while (list_is_empty(&q->jobs) && !q->ending && r == 0) {
        q->n_idle++;
        r = pthread_cond_timedwait(&q->work, &q->lock, &until);
        q->n_idle--;
    }
    struct list *l = list_pop_front(&q->jobs);
    if (!l)
        return NULL;
    q->n_jobs--;
    return container_of(l, struct workq_job, link);
}

static void *thread_main(void *arg)
{
    struct workq *q = arg;
    struct workq_job *job;

    pthread_mutex_lock(&q->lock);
    while ((job = next_job(q))) {
        pthread_mutex_unlock(&q->lock);
        job->fn(job);
        pthread_mutex_lock(&q->lock);
    }
    q->n_threads--;
    /* Under the lock: once it is released workq_end() may return and q be freed. */
    pthread_cond_signal(&q->ended);
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* All signals are for the thread that runs the loop. */
static int start_thread(struct workq *q)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;

    int r = pthread_attr_init(&attr);
    if (r)
        return -r;
    pthread_attr_setstacksize(&attr, WORKQ_STACK_BYTES);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attr, thread_main, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

int workq_submit(struct workq *q, struct workq_job *job, workq_fn fn)
{
    int r = 0;

    job->fn = fn;
    pthread_mutex_lock(&q->lock);
    if (q->ending) {
        pthread_mutex_unlock(&q->lock);
        return -ESHUTDOWN;
    }
    list_push_back(&q->jobs, &job->link);
    q->n_jobs++;
    if (q->n_jobs > q->n_idle && q->n_threads < q->max_threads) {
        q->n_threads++;
        r = start_thread(q);
        if (r < 0) {
            q->n_threads--;
            if (q->n_threads > 0) {
                r = 0;
            } else {
                list_remove(&job->link);
                q->n_jobs--;
            }
        }
    }
    if (r == 0)
        pthread_cond_signal(&q->work);
    pthread_mutex_unlock(&q->lock);
    return r;
}

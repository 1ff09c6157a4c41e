/* SPDX-License-Identifier: Apache-2.0 */
#include "base/workq.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#include "base/attr.h"

struct worker {
    struct list link; /* of left */
    struct workq *queue;
    pthread_t thread;
    /* Ours, since the C library keeps the stacks of ended threads, touched pages and all. */
    void *stack;
};

#define GUARD_BYTES 4096

struct workq {
    pthread_mutex_t lock;
    pthread_cond_t work;  /* a job came, or the queue is ending */
    pthread_cond_t ended; /* a thread has left */
    struct list jobs;
    struct list left; /* workers that have left and are to be joined */
    unsigned n_jobs;
    unsigned n_threads, n_idle, max_threads;
    bool ending;
    workq_idle_fn on_idle; /* NULL: nobody wants to know */
    void *userdata;        /* of on_idle */
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
    list_init(&q->left);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->ended, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->work, &attr);
    pthread_condattr_destroy(&attr);
    *ret = q;
    return 0;
}

void workq_on_idle(struct workq *q, workq_idle_fn fn, void *userdata)
{
    q->on_idle = fn;
    q->userdata = userdata;
}

static struct worker *worker_new(struct workq *q)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->queue = q;
    w->stack = mmap(NULL, GUARD_BYTES + WORKQ_STACK_BYTES, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (w->stack == MAP_FAILED || mprotect(w->stack, GUARD_BYTES, PROT_NONE) < 0) {
        if (w->stack != MAP_FAILED)
            munmap(w->stack, GUARD_BYTES + WORKQ_STACK_BYTES);
        free(w);
        return NULL;
    }
    return w;
}

static void worker_free(struct worker *w)
{
    munmap(w->stack, GUARD_BYTES + WORKQ_STACK_BYTES);
    free(w);
}

/* With the lock held. Who has left has nothing more to do than to end. */
static void join_left(struct workq *q)
{
    for (struct list *l; (l = list_pop_front(&q->left));) {
        struct worker *w = container_of(l, struct worker, link);
        pthread_join(w->thread, NULL);
        worker_free(w);
    }
}

void workq_end(struct workq *q)
{
    pthread_mutex_lock(&q->lock);
    q->ending = true;
    pthread_cond_broadcast(&q->work);
    while (q->n_threads > 0)
        pthread_cond_wait(&q->ended, &q->lock);
    join_left(q);
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

/* Until none has come for a while, with the lock held between them. */
static void run_jobs(struct workq *q)
{
    for (struct workq_job *job; (job = next_job(q));) {
        pthread_mutex_unlock(&q->lock);
        job->fn(job);
        pthread_mutex_lock(&q->lock);
    }
}

static void *thread_main(void *arg)
{
    struct worker *w = arg;
    struct workq *q = w->queue;

    pthread_mutex_lock(&q->lock);
    /* What comes during on_idle may find no room for another thread, and is ours then. */
    do {
        run_jobs(q);
        if (q->n_threads == 1 && !q->ending && q->on_idle) {
            pthread_mutex_unlock(&q->lock);
            q->on_idle(q->userdata);
            pthread_mutex_lock(&q->lock);
        }
    } while (!list_is_empty(&q->jobs));
    /* Each joins those before it, so that at most one lies about. */
    join_left(q);
    q->n_threads--;
    list_push_back(&q->left, &w->link);
    pthread_cond_signal(&q->ended);
    pthread_mutex_unlock(&q->lock);
    return NULL;
}

/* With the lock held, which the new thread takes first: its handle is there before it can leave.
 * All signals are for the thread that runs the loop. */
static int start_thread(struct workq *q)
{
    pthread_attr_t attr;
    sigset_t all, before;
    join_left(q);
    struct worker *w = worker_new(q);
    if (!w)
        return -ENOMEM;
    int r = pthread_attr_init(&attr);
    if (r) {
        worker_free(w);
        return -r;
    }
    pthread_attr_setstack(&attr, (char *)w->stack + GUARD_BYTES, WORKQ_STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&w->thread, &attr, thread_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (r)
        worker_free(w);
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

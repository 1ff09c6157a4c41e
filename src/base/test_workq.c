/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "base/workq.h"

#define JOBS 1000

struct job {
    struct workq_job job;
    int number;
};

static pthread_barrier_t together;
static atomic_int done, last;
static atomic_bool in_order, blocked_signals;

static void count(struct workq_job *j)
{
    struct job *job = container_of(j, struct job, job);

    if (job->number != atomic_load(&last) + 1)
        atomic_store(&in_order, false);
    atomic_store(&last, job->number);
    atomic_fetch_add(&done, 1);
}

static void all_jobs_run_in_order(_unused_ void **state)
{
    struct workq *q = NULL;
    struct job *jobs = calloc(JOBS, sizeof(*jobs));

    atomic_store(&done, 0);
    atomic_store(&last, -1);
    atomic_store(&in_order, true);
    assert_int_equal(workq_new(1, &q), 0);
    for (int i = 0; i < JOBS; i++) {
        jobs[i].number = i;
        assert_int_equal(workq_submit(q, &jobs[i].job, count), 0);
    }
    q = workq_free(q);
    assert_int_equal(atomic_load(&done), JOBS);
    assert_true(atomic_load(&in_order));
    free(jobs);
}

static void meet(_unused_ struct workq_job *job)
{
    sigset_t mask;

    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (!sigismember(&mask, SIGTERM))
        atomic_store(&blocked_signals, false);
    pthread_barrier_wait(&together);
    atomic_fetch_add(&done, 1);
}

static void jobs_run_side_by_side(_unused_ void **state)
{
    struct workq *q = NULL;
    struct job jobs[8];

    atomic_store(&done, 0);
    atomic_store(&blocked_signals, true);
    pthread_barrier_init(&together, NULL, 4);
    assert_int_equal(workq_new(4, &q), 0);
    /* Each four need four threads at once to go on; eight need the four to be used again. */
    for (int i = 0; i < 8; i++)
        assert_int_equal(workq_submit(q, &jobs[i].job, meet), 0);
    q = workq_free(q);
    assert_int_equal(atomic_load(&done), 8);
    assert_true(atomic_load(&blocked_signals));
    pthread_barrier_destroy(&together);
}

static void free_itself(struct workq_job *job)
{
    free(container_of(job, struct job, job));
    atomic_fetch_add(&done, 1);
}

static void jobs_may_free_themselves(_unused_ void **state)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct workq *q = NULL;

    atomic_store(&done, 0);
    assert_int_equal(workq_new(3, &q), 0);
    for (int i = 0; i < 100; i++) {
        struct job *job = calloc(1, sizeof(*job));
        assert_int_equal(workq_submit(q, &job->job, free_itself), 0);
        if (i % 10 == 0)
            nanosleep(&pause, NULL); /* lets threads become idle */
    }
    q = workq_free(q);
    assert_int_equal(atomic_load(&done), 100);
}

struct idle {
    sem_t began, go_on;
    int done_before;
};

static void note_idle(void *userdata)
{
    struct idle *idle = userdata;

    idle->done_before = atomic_load(&done);
    sem_post(&idle->began);
    sem_wait(&idle->go_on);
}

static void idleness_is_told_and_loses_no_job(_unused_ void **state)
{
    struct idle idle;
    struct workq *q = NULL;
    struct job jobs[4] = {{.number = 0}, {.number = 1}, {.number = 2}, {.number = 3}};

    atomic_store(&done, 0);
    atomic_store(&last, -1);
    sem_init(&idle.began, 0, 0);
    sem_init(&idle.go_on, 0, 0);
    assert_int_equal(workq_new(1, &q), 0);
    workq_on_idle(q, note_idle, &idle);
    for (int i = 0; i < 3; i++)
        assert_int_equal(workq_submit(q, &jobs[i].job, count), 0);
    sem_wait(&idle.began);
    assert_int_equal(idle.done_before, 3);
    /* There is but one thread, and it is busy telling. */
    assert_int_equal(workq_submit(q, &jobs[3].job, count), 0);
    sem_post(&idle.go_on);
    q = workq_free(q);
    assert_int_equal(atomic_load(&done), 4);
    /* A pool that ends is not idle. */
    assert_int_equal(sem_trywait(&idle.began), -1);
    sem_destroy(&idle.began);
    sem_destroy(&idle.go_on);
}

static void unused_queue(_unused_ void **state)
{
    struct workq *q = NULL;

    assert_int_equal(workq_new(0, &q), -EINVAL);
    assert_null(q);
    assert_null(workq_free(NULL));
    assert_int_equal(workq_new(2, &q), 0);
    assert_null(workq_free(q));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_jobs_run_in_order),
        cmocka_unit_test(jobs_run_side_by_side),
        cmocka_unit_test(jobs_may_free_themselves),
        cmocka_unit_test(idleness_is_told_and_loses_no_job),
        cmocka_unit_test(unused_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

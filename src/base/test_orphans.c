/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/orphans.h"
#include "base/proc.h"

#define THREADS 4
#define ROUNDS 40
#define PATIENCE_MS 20000

static atomic_uint n_settled;

static void on_settled(_unused_ void *userdata)
{
    atomic_fetch_add(&n_settled, 1);
}

static struct proc start(const char *script)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc p = PROC_NULL;

    s.path = "/bin/sh";
    s.argv = argv;
    return proc_spawn(&s, &p) == 0 ? p : (struct proc)PROC_NULL;
}

/* The first ended child, 0: none. */
static pid_t ended(void)
{
    siginfo_t info = {.si_pid = 0};

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ? 0 : info.si_pid;
}

static pid_t wait_ended(void)
{
    uint64_t deadline = clock_monotonic_ms() + PATIENCE_MS;
    pid_t pid;

    while (!(pid = ended()) && clock_monotonic_ms() < deadline)
        usleep(1000);
    return pid;
}

static bool has_children(void)
{
    siginfo_t info;

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void own_children_are_left_alone(_unused_ void **state)
{
    struct proc p = start("exit 7");
    unsigned before = atomic_load(&n_settled);
    int status = 0;

    assert_int_equal(wait_ended(), p.pid);
    assert_false(orphans_reap(p.pid));
    assert_int_equal(atomic_load(&n_settled), before);
    assert_int_equal(proc_reap(&p, false, &status), 1);
    assert_int_equal(status, 7);
    /* It stood in the way of whatever ended behind it. */
    assert_int_equal(atomic_load(&n_settled), before + 1);
    proc_done(&p);
    assert_false(has_children());
}

static void orphans_are_reaped(_unused_ void **state)
{
    struct proc p = start("sh -c 'exit 3' & exit 5");
    int status = 0;

    assert_int_equal(proc_reap(&p, true, &status), 1);
    assert_int_equal(status, 5);
    proc_done(&p);
    if (has_children()) { /* sh may have reaped it before it ended */
        pid_t orphan = wait_ended();
        assert_int_not_equal(orphan, 0);
        assert_true(orphans_reap(orphan));
    }
    assert_false(has_children());
}

static void who_is_let_go_is_an_orphan(_unused_ void **state)
{
    struct proc p = start("exit 0");

    assert_int_equal(wait_ended(), p.pid);
    pid_t pid = p.pid;
    proc_done(&p);
    assert_true(orphans_reap(pid));
    assert_false(has_children());
}

/* Somebody else's reference to one of ours changes nothing. */
static void opened_is_not_owned(_unused_ void **state)
{
    struct proc p = start("exit 4");
    struct proc other = PROC_NULL;
    int status = 0;

    assert_int_equal(proc_open(p.pid, &other), 0);
    assert_int_equal(wait_ended(), p.pid);
    proc_done(&other);
    assert_false(orphans_reap(p.pid));
    assert_int_equal(proc_reap(&p, false, &status), 1);
    assert_int_equal(status, 4);
    proc_done(&p);
}

static void failed_start_leaves_no_note(_unused_ void **state)
{
    const char *argv[] = {"x", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc p = PROC_NULL;

    s.path = "/does/not/exist";
    s.argv = argv;
    assert_int_equal(proc_spawn(&s, &p), -ENOENT);
    assert_false(has_children());
}

/* Each child leaves two orphans and ends with a status of its own. */
static void *spawn_many(void *arg)
{
    bool *good = arg;

    *good = true;
    for (int i = 0; i < ROUNDS && *good; i++) {
        char script[80];
        int status = -1;
        snprintf(script, sizeof(script), "sleep 0.0%d & sh -c 'exit 9' & exit %d", i % 4, i + 10);
        struct proc p = start(script);
        *good = proc_is_set(&p) && proc_reap(&p, i % 2, &status) >= 0;
        while (*good && i % 2 == 0 && status < 0)
            *good = proc_wait_end(&p, PATIENCE_MS) == 1 && proc_reap(&p, false, &status) >= 0;
        *good = *good && status == i + 10;
        proc_done(&p);
    }
    return NULL;
}

static void nobody_is_robbed(_unused_ void **state)
{
    uint64_t deadline = clock_monotonic_ms() + PATIENCE_MS;
    pthread_t threads[THREADS];
    bool good[THREADS];
    unsigned reaped = 0;

    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, spawn_many, &good[i]), 0);
    /* Until all threads are through and nothing is left, since nobody else takes the orphans. */
    for (int joined = 0; joined < THREADS || has_children();) {
        pid_t pid = ended();
        if (pid && orphans_reap(pid))
            reaped++;
        if (joined < THREADS && pthread_tryjoin_np(threads[joined], NULL) == 0)
            joined++;
        assert_true(clock_monotonic_ms() < deadline);
        if (!pid)
            usleep(100);
    }
    for (int i = 0; i < THREADS; i++)
        assert_true(good[i]);
    assert_true(reaped > 0);
}

static void no_word_after_leaving(_unused_ void **state)
{
    struct proc p = start("exit 0");
    int status;

    assert_int_equal(wait_ended(), p.pid);
    assert_false(orphans_reap(p.pid));
    orphans_leave();
    unsigned before = atomic_load(&n_settled);
    assert_int_equal(proc_reap(&p, true, &status), 1);
    assert_int_equal(atomic_load(&n_settled), before);
    proc_done(&p);
}

static int inherit(_unused_ void **state)
{
    return orphans_inherit(on_settled, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_children_are_left_alone), cmocka_unit_test(orphans_are_reaped),
        cmocka_unit_test(who_is_let_go_is_an_orphan),  cmocka_unit_test(opened_is_not_owned),
        cmocka_unit_test(failed_start_leaves_no_note), cmocka_unit_test(nobody_is_robbed),
        cmocka_unit_test(no_word_after_leaving),
    };
    return cmocka_run_group_tests(tests, inherit, NULL);
}

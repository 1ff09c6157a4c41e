/* SPDX-License-Identifier: Apache-2.0 */
/* The registry and shims that are dead before their processes have ended. */
#include "runtime/tasks_private.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/sock.h"
#include "base/str.h"

struct fixture {
    struct event_loop loop;
    struct workq *pool;
    struct exchange *exchange;
    struct tasks *tasks;
    char dir[64];
    char address[96];
    int listener;
    struct proc proc; /* what is taken for the shim */
};

static int setup(void **state)
{
    static const char *const argv[] = {"sleep", "1000", NULL};
    const struct proc_spawn sleeper = {.path = "/bin/sleep", .exec_fd = -EBADF, .argv = argv};
    struct fixture *f = calloc(1, sizeof(*f));
    struct tasks_options options = {.oci_runtime = "runc"};
    struct err e = ERR_INIT;

    snprintf(f->dir, sizeof(f->dir), "/tmp/wherry-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->address, sizeof(f->address), "unix://%s/s", f->dir);
    assert_int_equal(sock_listen(str_after_prefix(f->address, "unix://"), 0600, 8, &f->listener),
                     0);
    assert_int_equal(proc_spawn(&sleeper, &f->proc), 0);
    assert_int_equal(event_loop_init(&f->loop), 0);
    assert_int_equal(event_loop_enable_posts(&f->loop), 0);
    assert_int_equal(workq_new(1, &f->pool), 0);
    assert_int_equal(exchange_new(&f->exchange), 0);
    assert_int_equal(tasks_new(&f->loop, f->pool, f->exchange, &options, &f->tasks, &e), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close(f->listener);
    unlink(str_after_prefix(f->address, "unix://"));
    rmdir(f->dir);
    free(f);
    return 0;
}

static void end(struct fixture *f)
{
    f->pool = workq_free(f->pool);
    f->tasks = tasks_free(f->tasks);
    exchange_free(f->exchange);
    assert_int_equal(event_loop_turn(&f->loop, 0), 0);
    event_loop_done(&f->loop);
}

static void a_dead_shim_is_let_go_before_its_process_ends(void **state)
{
    struct fixture *f = *state;
    struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;
    struct shim *shim = NULL;
    struct err e = ERR_INIT;
    pid_t pid = f->proc.pid;
    int pidfd = f->proc.pidfd;

    endpoint.address = strdup(f->address);
    endpoint.version = 2;
    endpoint.proc = f->proc;
    assert_int_equal(tasks_connect(f->tasks, &endpoint, &shim, &e), 0);
    shim_endpoint_done(&endpoint);
    int accepted = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(accepted >= 0);
    close(accepted);
    while (!atomic_load(&shim->dead))
        assert_int_equal(event_loop_turn(&f->loop, -1), 0);
    shim_unref(shim);
    end(f);
    /* Nothing of it is kept, and the process was left alone. */
    assert_int_equal(fcntl(pidfd, F_GETFD), -1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_dead_shim_is_let_go_before_its_process_ends, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/proc.h"

#define OUTPUT_MAX 4096

static int run_shell(const char *script, const char *input, int timeout_ms, struct buf *out,
                     int *status)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;

    s.path = "/bin/sh";
    s.argv = argv;
    return proc_run(&s, input, input ? strlen(input) : 0, timeout_ms, out, status);
}

static void assert_output(const char *script, const char *input, const char *expected)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(OUTPUT_MAX);
    int status;

    assert_int_equal(run_shell(script, input, 10000, &out, &status), 0);
    assert_int_equal(status, 0);
    _free_ char *text = buf_take_str(&out);
    assert_string_equal(text, expected);
}

static void output_and_input(_unused_ void **state)
{
    assert_output("echo out; echo err >&2", NULL, "out\nerr\n");
    assert_output("cat", "some bytes", "some bytes");
    assert_output("cat", NULL, "");
}

static void exit_statuses(_unused_ void **state)
{
    int status;

    assert_int_equal(run_shell("exit 3", NULL, 10000, NULL, &status), 0);
    assert_int_equal(status, 3);
    assert_int_equal(run_shell("kill -9 $$", NULL, 10000, NULL, &status), 0);
    assert_int_equal(status, 137);
}

static void failing_exec_is_an_errno(_unused_ void **state)
{
    const char *argv[] = {"x", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc p = PROC_NULL;
    int status;

    s.argv = argv;
    s.path = "/does/not/exist";
    assert_int_equal(proc_spawn(&s, &p), -ENOENT);
    s.path = "/etc/passwd";
    assert_int_equal(proc_spawn(&s, &p), -EACCES);
    s.path = "/bin/true";
    s.cwd = "/does/not/exist";
    assert_int_equal(proc_spawn(&s, &p), -ENOENT);
    s.cwd = NULL;
    s.cgroup_procs = "/does/not/exist";
    assert_int_equal(proc_spawn(&s, &p), -ENOENT);
    assert_false(proc_is_set(&p));
    assert_int_equal(waitpid(-1, &status, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void fds_are_arranged(_unused_ void **state)
{
    int p[2], status;
    const char *argv[] = {"sh", "-c", "ls /proc/self/fd | tr '\\n' ' ' >&4; echo x >&3", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc child = PROC_NULL;
    char got[64] = "";

    assert_int_equal(pipe2(p, 0), 0); /* inheritable on purpose: must be closed all the same */
    int other = open("/dev/null", O_RDWR);
    /* Sources below and among the targets, one of them twice. */
    const int fds[] = {-EBADF, other, other, other, p[1]};
    s.path = "/bin/sh";
    s.argv = argv;
    s.fds = fds;
    s.n_fds = ARRAY_SIZE(fds);
    assert_int_equal(proc_spawn(&s, &child), 0);
    close(p[1]);
    close(other);
    assert_true(fs_read_all(p[0], got, sizeof(got) - 1) > 0);
    close(p[0]);
    assert_int_equal(proc_reap(&child, true, &status), 1);
    assert_int_equal(status, 0);
    /* 0 to 4, and the 5 that ls itself opened (a pipe of the shell took 1). */
    assert_string_equal(got, "0 1 2 3 4 5 ");
    proc_done(&child);
}

static void swapped_fds(_unused_ void **state)
{
    int status;
    const char *argv[] = {"sh", "-c", "read a; read b <&3; test $a = one -a $b = two", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc child = PROC_NULL;
    int one[2], two[2];

    assert_int_equal(pipe2(one, O_CLOEXEC), 0);
    assert_int_equal(pipe2(two, O_CLOEXEC), 0);
    assert_int_equal(fs_write_all(one[1], "one\n", 4), 0);
    assert_int_equal(fs_write_all(two[1], "two\n", 4), 0);
    int keep_0 = fcntl(0, F_DUPFD_CLOEXEC, 10), keep_3 = fcntl(3, F_DUPFD_CLOEXEC, 10);
    dup2(two[0], 0);
    dup2(one[0], 3);
    const int fds[] = {3, 1, 2, 0};
    s.path = "/bin/sh";
    s.argv = argv;
    s.fds = fds;
    s.n_fds = ARRAY_SIZE(fds);
    int r = proc_spawn(&s, &child);
    if (keep_0 >= 0)
        dup2(keep_0, 0);
    if (keep_3 >= 0)
        dup2(keep_3, 3);
    else
        close(3);
    close(keep_0);
    close(keep_3);
    assert_int_equal(r, 0);
    assert_int_equal(proc_reap(&child, true, &status), 1);
    assert_int_equal(status, 0);
    proc_done(&child);
    for (int i = 0; i < 2; i++) {
        if (one[i] != 3)
            close(one[i]);
        if (two[i] != 3)
            close(two[i]);
    }
}

static void signals_are_reset(_unused_ void **state)
{
    sigset_t all, before;

    signal(SIGPIPE, SIG_IGN);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    assert_output("sed -n -E '/^Sig(Blk|Ign|Cgt)/p' /proc/self/status | tr -d '\\t\\n'", NULL,
                  "SigBlk:0000000000000000SigIgn:0000000000000000SigCgt:0000000000000000");
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    assert_int_equal(sigismember(&now, SIGUSR1), 1); /* ours is as it was */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    signal(SIGPIPE, SIG_DFL);
}

static void exec_by_fd(_unused_ void **state)
{
    const char *argv[] = {"named", "-c", "exit $(test $0 = named && echo 4)", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc p = PROC_NULL;
    int status;

    s.exec_fd = open("/bin/sh", O_PATH | O_CLOEXEC);
    s.argv = argv;
    s.new_session = true;
    s.parent_death_signal = SIGKILL;
    assert_int_equal(proc_spawn(&s, &p), 0);
    close(s.exec_fd);
    assert_int_equal(proc_reap(&p, true, &status), 1);
    assert_int_equal(status, 4);
    assert_int_equal(proc_reap(&p, false, &status), -ECHILD);
    assert_int_equal(proc_kill(&p, SIGKILL), -ESRCH);
    proc_done(&p);
}

static void waiting_and_killing(_unused_ void **state)
{
    const char *argv[] = {"sleep", "1000", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    struct proc p = PROC_NULL, again = PROC_NULL;
    uint64_t start = 0, same = 1;
    int status;

    s.path = "/bin/sleep";
    s.argv = argv;
    s.new_group = true;
    assert_int_equal(proc_spawn(&s, &p), 0);
    assert_int_equal(getpgid(p.pid), p.pid);
    assert_int_equal(proc_reap(&p, false, &status), 0);
    assert_int_equal(proc_wait_end(&p, 10), 0);
    assert_int_equal(proc_open(p.pid, &again), 0);
    assert_int_equal(proc_start_time(p.pid, &start), 0);
    assert_int_equal(proc_start_time(p.pid, &same), 0);
    assert_true(start > 0 && start == same);
    assert_int_equal(proc_kill(&again, SIGTERM), 0);
    assert_int_equal(proc_wait_end(&p, 10000), 1);
    assert_int_equal(proc_reap(&p, true, &status), 1);
    assert_int_equal(status, 128 + SIGTERM);
    assert_int_equal(proc_open(p.pid, &p) < 0, 1);
    assert_int_equal(proc_start_time(again.pid, &start), -ESRCH);
    proc_done(&p);
    proc_done(&again);
}

static void run_is_killed_in_time(_unused_ void **state)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(OUTPUT_MAX);
    uint64_t begin = clock_monotonic_ms();
    int status;

    assert_int_equal(run_shell("exec sleep 1000", NULL, 50, &out, &status), -ETIMEDOUT);
    /* One that never stops writing as well. */
    assert_int_equal(run_shell("exec cat /dev/zero", NULL, 50, &out, &status), -ETIMEDOUT);
    assert_true(clock_monotonic_ms() - begin < 5000);
}

static void output_is_cut(_unused_ void **state)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(10);
    int status;

    assert_int_equal(run_shell("head -c 1000000 /dev/zero", NULL, 10000, &out, &status), 0);
    assert_int_equal(status, 0);
    assert_int_equal(out.len, 10);
}

static void left_behind_does_not_hold_us(_unused_ void **state)
{
    _cleanup_(buf_done) struct buf out = BUF_INIT(OUTPUT_MAX);
    uint64_t begin = clock_monotonic_ms();
    int status;

    assert_int_equal(run_shell("sleep 2 & echo begun", NULL, 20000, &out, &status), 0);
    assert_true(clock_monotonic_ms() - begin < 1500);
    assert_int_equal(out.len, 6);
}

static void cgroup_file_is_written(_unused_ void **state)
{
    char path[] = "/tmp/test-proc-XXXXXX", got[8] = "";
    const char *argv[] = {"true", NULL};
    struct proc_spawn s = PROC_SPAWN_INIT;
    int status;

    int fd = mkostemp(path, O_CLOEXEC);
    s.path = "/bin/true";
    s.argv = argv;
    s.cgroup_procs = path;
    assert_int_equal(proc_run(&s, NULL, 0, 10000, NULL, &status), 0);
    assert_int_equal(read(fd, got, sizeof(got)), 1);
    assert_string_equal(got, "0");
    unlink(path);
    close(fd);
}

static void *spawn_many(void *arg)
{
    for (int i = 0; i < 50; i++) {
        int status = -1;
        if (run_shell("exit 5", NULL, 10000, NULL, &status) < 0 || status != 5)
            *(bool *)arg = false;
    }
    return NULL;
}

static void threads_may_spawn(_unused_ void **state)
{
    pthread_t threads[4];
    bool good[4] = {true, true, true, true};

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, spawn_many, &good[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(good[i]);
    }
}

static void programs_are_found(_unused_ void **state)
{
    _free_ char *found = NULL;
    _free_ char *unused = NULL;

    assert_int_equal(proc_find_program("sh", "relative::/does/not/exist:/etc:/bin", &found), 0);
    assert_string_equal(found, "/bin/sh");
    assert_int_equal(proc_find_program("passwd", "/etc", &unused), -ENOENT);
    assert_int_equal(proc_find_program("../bin/sh", "/bin", &unused), -ENOENT);
    assert_int_equal(proc_find_program("", "/bin", &unused), -ENOENT);
    assert_null(unused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_and_input),
        cmocka_unit_test(exit_statuses),
        cmocka_unit_test(failing_exec_is_an_errno),
        cmocka_unit_test(fds_are_arranged),
        cmocka_unit_test(swapped_fds),
        cmocka_unit_test(signals_are_reset),
        cmocka_unit_test(exec_by_fd),
        cmocka_unit_test(waiting_and_killing),
        cmocka_unit_test(run_is_killed_in_time),
        cmocka_unit_test(output_is_cut),
        cmocka_unit_test(left_behind_does_not_hold_us),
        cmocka_unit_test(cgroup_file_is_written),
        cmocka_unit_test(threads_may_spawn),
        cmocka_unit_test(programs_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

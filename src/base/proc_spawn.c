/* SPDX-License-Identifier: Apache-2.0 */
/* Starting programs. Between the clone and the exec only system calls are made, see vchild.h. */
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/orphans.h"
#include "base/proc.h"
#include "base/vchild.h"

#define SPAWN_FDS_MAX 32
#define DRAIN_BYTES_MAX (1024 * 1024)

struct spawn_child {
    const struct proc_spawn *s;
    char *const *envp;
    pid_t parent;
    int n_fds;
    int fds[SPAWN_FDS_MAX]; /* moved out of the way of 0..n_fds-1 by the child */
    int failed;             /* negative errno once the child has given up */
};

/* A copy of fd at `from` or above; it goes with the exec. */
_vchild_ static int lift_fd(int fd, int from)
{
    return (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, from);
}

_vchild_ static int arrange_fds(struct spawn_child *c, int *exec_fd)
{
    int null_fd = -EBADF;

    /* First lift every source above the targets: no dup2(2) can then overwrite a source. */
    for (int i = 0; i < c->n_fds; i++) {
        int from = c->fds[i];
        if (from < 0) {
            if (null_fd < 0) {
                int fd =
                    (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
                if (fd < 0)
                    return -errno;
                null_fd = lift_fd(fd, c->n_fds);
                if (null_fd < 0)
                    return -errno;
            }
            c->fds[i] = null_fd;
        } else if (from < c->n_fds) {
            c->fds[i] = lift_fd(from, c->n_fds);
            if (c->fds[i] < 0)
                return -errno;
        }
    }
    if (*exec_fd >= 0 && *exec_fd < c->n_fds) {
        *exec_fd = lift_fd(*exec_fd, c->n_fds);
        if (*exec_fd < 0)
            return -errno;
    }
    for (int i = 0; i < c->n_fds; i++)
        if (syscall(SYS_dup3, c->fds[i], i, 0) < 0)
            return -errno;
    /* Not closed but marked: exec_fd must live until the exec. */
    return neg_errno((int)syscall(SYS_close_range, c->n_fds, ~0U, CLOSE_RANGE_CLOEXEC));
}

_vchild_ static int join_cgroup(const char *procs)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return syscall(SYS_write, fd, "0", 1) < 0 ? -errno : 0; /* closed by the exec */
}

_vchild_ static void default_signals(void)
{
    /* The kernel's struct sigaction with SIG_DFL, no flags and an empty mask: all zero. */
    static const unsigned long by_default[8];
    static const uint64_t none;

    /* Handlers first: a signal that becomes deliverable must not run ours in shared memory. */
    for (int sig = 1; sig < NSIG; sig++)
        syscall(SYS_rt_sigaction, sig, by_default, NULL, sizeof(none));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

_vchild_ static int child_run(struct spawn_child *c)
{
    const struct proc_spawn *s = c->s;
    int exec_fd = s->exec_fd;
    int r;

    if (s->parent_death_signal) {
        if (prctl(PR_SET_PDEATHSIG, s->parent_death_signal) < 0)
            return -errno;
        if (getppid() != c->parent)
            return -ESRCH; /* it died before the request was in place */
    }
    if (s->new_session && setsid() < 0)
        return -errno;
    if (s->new_group && setpgid(0, 0) < 0)
        return -errno;
    if (s->cgroup_procs && (r = join_cgroup(s->cgroup_procs)) < 0)
        return r;
    if (s->cwd && chdir(s->cwd) < 0)
        return -errno;
    r = arrange_fds(c, &exec_fd);
    if (r < 0)
        return r;
    /* Last, since what is arranged above may lie beyond the new limit. */
    if (s->open_files && syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, s->open_files, NULL) < 0)
        return -errno;
    default_signals();

    char *const *argv = (char *const *)s->argv;
    if (exec_fd >= 0)
        syscall(SYS_execveat, exec_fd, "", argv, c->envp, AT_EMPTY_PATH);
    else
        execve(s->path, argv, c->envp);
    return -errno;
}

_vchild_ static int child_main(void *arg)
{
    struct spawn_child *c = arg;

    c->failed = child_run(c);
    syscall(SYS_exit_group, 127);
    return 127;
}

int proc_spawn(const struct proc_spawn *s, struct proc *ret)
{
    struct spawn_child c = {.s = s, .parent = getpid()};
    int pidfd = -EBADF;

    if (s->n_fds > SPAWN_FDS_MAX || (!s->path && s->exec_fd < 0) || !s->argv || !s->argv[0])
        return -EINVAL;
    c.envp = s->envp ? (char *const *)s->envp : environ;
    c.n_fds = (int)MAX_OF(s->n_fds, (size_t)3);
    for (int i = 0; i < c.n_fds; i++)
        c.fds[i] = (size_t)i < s->n_fds ? s->fds[i] : -EBADF;

    int r = orphans_start_begins();
    if (r < 0)
        return r;
    pid_t pid = vchild_start(child_main, &c, SIGCHLD, &pidfd);
    orphans_start_ended(MAX_OF(pid, 0));
    if (pid < 0)
        return pid;

    struct proc p = {.pid = pid, .pidfd = pidfd, .is_own = true};
    if (c.failed < 0) {
        int status;
        proc_reap(&p, true, &status);
        proc_done(&p);
        return c.failed;
    }
    *ret = p;
    return 0;
}

/* Bytes as a file to be read from its start: unlike a pipe it takes all of them at once. */
static int input_file(const void *bytes, size_t n)
{
    _close_ int fd = neg_errno(memfd_create("stdin", MFD_CLOEXEC));
    if (fd < 0)
        return fd;
    int r = fs_write_all(fd, bytes, n);
    if (r < 0)
        return r;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* Takes what is there, at most a few pipes full: a program that never stops writing must not keep
 * us from looking at the clock. Returns 1 when there may be more, 0 at the end, negative errno. */
static int drain(int fd, struct buf *output)
{
    char chunk[4096];

    for (size_t taken = 0; taken < DRAIN_BYTES_MAX;) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 1 : -errno;
        if (n == 0)
            return 0;
        size_t room = output->max - output->len;
        int r = buf_append(output, chunk, MIN_OF((size_t)n, room));
        if (r < 0)
            return r;
        taken += (size_t)n;
    }
    return 1;
}

/* Collects until the program has ended, even if something it left behind keeps the pipe open. */
static int collect(const struct proc *p, int *out_fd, uint64_t deadline, bool forever,
                   struct buf *output)
{
    for (;;) {
        struct pollfd pfds[2] = {{.fd = p->pidfd, .events = POLLIN},
                                 {.fd = *out_fd, .events = POLLIN}};
        uint64_t now = clock_monotonic_ms();
        if (!forever && now >= deadline)
            return -ETIMEDOUT;
        int n = poll(pfds, 2, forever ? -1 : (int)(deadline - now));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n <= 0)
            continue;
        if (*out_fd >= 0 && (pfds[1].revents || pfds[0].revents)) {
            int r = drain(*out_fd, output);
            if (r < 0)
                return r;
            if (r == 0)
                close_fd(out_fd);
        }
        if (pfds[0].revents)
            return 0;
    }
}

int proc_run(const struct proc_spawn *s, const void *input, size_t input_len, int timeout_ms,
             struct buf *output, int *ret_status)
{
    _close_ int in_fd = -EBADF;
    _close_ int out_read = -EBADF;
    _close_ int out_write = -EBADF;
    _cleanup_(proc_done) struct proc p = PROC_NULL;
    uint64_t deadline = clock_monotonic_ms() + (uint64_t)MAX_OF(timeout_ms, 0);

    if (input) {
        in_fd = input_file(input, input_len);
        if (in_fd < 0)
            return in_fd;
    }
    if (output) {
        int pipe_fds[2];
        if (pipe2(pipe_fds, O_CLOEXEC) < 0)
            return -errno;
        out_read = pipe_fds[0];
        out_write = pipe_fds[1];
        int r = fs_set_nonblock(out_read, true);
        if (r < 0)
            return r;
    }

    bool has_stderr = s->fds && s->n_fds > 2 && s->fds[2] >= 0;
    const int fds[3] = {in_fd, out_write, has_stderr ? s->fds[2] : out_write};
    struct proc_spawn with_fds = *s;
    with_fds.fds = fds;
    with_fds.n_fds = 3;
    int r = proc_spawn(&with_fds, &p);
    if (r < 0)
        return r;
    close_fd(&out_write);

    int status = 0;
    r = collect(&p, &out_read, deadline, timeout_ms < 0, output);
    /* With what it has started: its group cannot have passed on before it is reaped. */
    if (r < 0 && s->new_group)
        kill(-p.pid, SIGKILL);
    if (r < 0)
        proc_kill(&p, SIGKILL);
    int reaped = proc_reap(&p, true, &status);
    if (r < 0)
        return r;
    if (reaped < 0)
        return reaped;
    *ret_status = status;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/proc.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/orphans.h"

/* Not in every libc header; waitid(2). */
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

void proc_done(struct proc *p)
{
    if (p->is_own)
        orphans_disown(p->pid);
    close_fd(&p->pidfd);
    p->pid = 0;
    p->is_own = false;
}

int proc_open(pid_t pid, struct proc *ret)
{
    if (pid <= 0)
        return -ESRCH;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return -errno;
    *ret = (struct proc){.pid = pid, .pidfd = fd};
    return 0;
}

int proc_kill(const struct proc *p, int sig)
{
    if (!proc_is_set(p) || p->pidfd < 0)
        return -ESRCH;
    return neg_errno((int)syscall(SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0));
}

static int wait_for(const struct proc *p, int options, siginfo_t *ret)
{
    int r;

    do
        r = waitid((idtype_t)P_PIDFD, (id_t)p->pidfd, ret, WEXITED | options);
    while (r < 0 && errno == EINTR);
    return r;
}

int proc_reap(struct proc *p, bool block, int *ret_status)
{
    siginfo_t info = {.si_pid = 0};
    int r = 0;

    if (p->pidfd < 0)
        return -ECHILD;
    if (block)
        r = wait_for(p, WNOWAIT, &info);
    info.si_pid = 0;
    if (r == 0)
        r = p->is_own ? orphans_reap_own(p->pid, p->pidfd, &info) : wait_for(p, WNOHANG, &info);
    if (r < 0)
        return -errno;
    if (info.si_pid == 0)
        return 0;
    p->is_own = false;
    *ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
    return 1;
}

int proc_wait_end(const struct proc *p, int timeout_ms)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
    uint64_t deadline = clock_monotonic_ms() + (uint64_t)MAX_OF(timeout_ms, 0);

    if (p->pidfd < 0)
        return -ESRCH;
    for (;;) {
        uint64_t now = clock_monotonic_ms();
        int left = timeout_ms < 0 ? -1 : now < deadline ? (int)(deadline - now) : 0;
        int n = poll(&pfd, 1, left);
        if (n > 0)
            return 1;
        if (n < 0 && errno != EINTR)
            return -errno;
        if (left == 0)
            return 0;
    }
}

int proc_start_time(pid_t pid, uint64_t *ret_ticks)
{
    char path[32], line[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    ssize_t n = fs_read_all(fd, line, sizeof(line) - 1);
    if (n < 0)
        return (int)n;
    line[n] = 0;

    /* proc(5): field 2 is the name in parentheses and may hold anything, so fields are counted from
     * its last ')', behind which field 3 begins. */
    const char *s = strrchr(line, ')');
    for (int field = 2; s && field < 22; field++) {
        s = strchr(s, ' ');
        if (s)
            s++;
    }
    if (!s || *s < '0' || *s > '9')
        return -EBADMSG;
    uint64_t ticks = 0;
    for (; *s >= '0' && *s <= '9'; s++)
        ticks = ticks * 10 + (uint64_t)(*s - '0');
    *ret_ticks = ticks;
    return 0;
}

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

bool proc_read_link(pid_t pid, const char *name, char *ret, size_t size)
{
    char link[48];

    snprintf(link, sizeof(link), "/proc/%d/%s", (int)pid, name);
    ssize_t n = readlink(link, ret, size - 1);
    if (n < 0)
        return false;
    ret[n] = '\0';
    return true;
}

int proc_find_program(const char *name, const char *path, char **ret)
{
    if (!*name || strchr(name, '/'))
        return -ENOENT;
    if (!path)
        path = getenv("PATH");
    if (!path)
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    size_t name_len = strlen(name);
    for (const char *dir = path;; dir++) {
        size_t len = strcspn(dir, ":");
        /* An empty or relative entry means the working directory: never looked at, since what runs
         * would depend on where we were started. */
        if (dir[0] == '/') {
            _free_ char *full = malloc(len + name_len + 2);
            if (!full)
                return -ENOMEM;
            memcpy(full, dir, len);
            full[len] = '/';
            memcpy(full + len + 1, name, name_len + 1);
            if (is_program(full)) {
                *ret = TAKE(full);
                return 0;
            }
        }
        dir += len;
        if (!*dir)
            return -ENOENT;
    }
}

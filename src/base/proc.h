/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: never a naked pid. struct proc is a pid with the pidfd that pins it, so that a signal
 * cannot reach a process which got the number later (pidfd_open(2), pidfd_send_signal(2)).
 */
#pragma once

#include <signal.h>
#include <sys/resource.h>

#include "base/attr.h"

struct proc {
    pid_t pid;   /* 0: none */
    int pidfd;   /* -EBADF: none; readable once the process has ended */
    bool is_own; /* started by proc_spawn() and not reaped yet */
};
#define PROC_NULL                 \
    {                             \
        .pid = 0, .pidfd = -EBADF \
    }

/* How an ended process ended, as shells and containerd count: its exit code, or 128 + signal. */
static inline bool proc_is_set(const struct proc *p)
{
    return p->pid > 0;
}
/* Closes the pidfd; the process is left alone, and a child that was not reaped is an orphan. */
void proc_done(struct proc *p);
/* Opens a pidfd on a pid that is known to be alive and ours (a child, or /proc-verified). -ESRCH.
 */
int proc_open(pid_t pid, struct proc *ret);
/* 0, -ESRCH when it has ended and was reaped, other negative errno. */
int proc_kill(const struct proc *p, int sig);
/* Reaps a child. block: waits for it. Returns 1 and the status (code or 128 + signal) when it has
 * ended, 0 when it still runs, negative errno (-ECHILD: not our child or already reaped). */
int proc_reap(struct proc *p, bool block, int *ret_status);
/* Waits up to timeout_ms for the end (pidfd readable) of any process, child or not. 1 ended, 0 time
 * is over, negative errno. */
int proc_wait_end(const struct proc *p, int timeout_ms);

/* Start time in clock ticks from /proc/<pid>/stat (field 22): with the pid it names one process. */
int proc_start_time(pid_t pid, uint64_t *ret_ticks);

/* What to start. Everything is borrowed for the duration of the call. */
struct proc_spawn {
    const char *path; /* absolute; argv[0] may differ. No PATH look-up. */
    int exec_fd;      /* >= 0: execveat(exec_fd, "", AT_EMPTY_PATH) instead of path (set -EBADF
                         otherwise) */
    const char *const *argv; /* NULL-terminated */
    const char *const *envp; /* NULL: the caller's environment */
    const char *cwd;         /* NULL: the caller's */
    const int *fds; /* fds[i] becomes fd i in the child, -EBADF: /dev/null; all others are closed */
    size_t n_fds;   /* at least 3 are always arranged */
    bool new_session;                /* setsid(2) */
    bool new_group;                  /* setpgid(0, 0) */
    int parent_death_signal;         /* 0: none */
    const struct rlimit *open_files; /* RLIMIT_NOFILE; NULL: the caller's */
    const char
        *cgroup_procs; /* NULL, or a cgroup.procs/tasks file the child writes "0" to before exec */
};
#define PROC_SPAWN_INIT   \
    {                     \
        .exec_fd = -EBADF \
    }

/*
 * Starts a program with vfork(2) semantics: signals unblocked and default, umask untouched, every
 * fd but those named closed. A failing exec is reported here as its errno (-ENOENT, -EACCES, ...);
 * no child is left then.
 */
int proc_spawn(const struct proc_spawn *s, struct proc *ret);

/* Where /proc/<pid>/<name> leads, "cwd" or "exe", proc(5): cut to size, always with a NUL. False: the
 * process is gone or has none. */
bool proc_read_link(pid_t pid, const char *name, char *ret, size_t size);

/* First executable regular file called name in the directories of path (NULL: $PATH). The caller
 * frees. -ENOENT. */
int proc_find_program(const char *name, const char *path, char **ret);

/*
 * Runs a program to its end from a thread that may block, collecting stdout and stderr together,
 * cut at max_output bytes (the rest is read and dropped). input may be NULL. Killed with SIGKILL
 * when timeout_ms is over (-ETIMEDOUT). Of s->fds only fds[2] counts: where stderr goes when it is
 * not to be collected.
 */
struct buf;
int proc_run(const struct proc_spawn *s, const void *input, size_t input_len, int timeout_ms,
             struct buf *output, int *ret_status);

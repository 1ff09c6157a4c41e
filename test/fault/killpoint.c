/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kills a process at its N-th system call that changes something outside of it.
 *
 *     killpoint PID N            the process PID, all of its threads, none of its children
 *     killpoint PID N PROGRAM    the first child of PID that executes PROGRAM (by the file's name),
 *                                from then on
 *     killpoint PID N PROGRAM +  that one and its children; who makes the call is killed
 *
 * Prints "ready" when it watches, then one line per such call, "<number> <name> <argument>", and
 * ends with "killed" (status 0) or, when the process ended by itself, "ended" (status 1). N = 0
 * kills never: the lines of such a run are the points that there are. When killpoint itself is
 * killed, the process goes on unwatched.
 *
 * The call at which it is killed is not carried out: the kernel gives up a call whose tracer has
 * sent SIGKILL at its entry. So N and N + 1 are the states before and after call N.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS_MAX 512

struct watch {
    pid_t daemon; /* what is watched for children, 0: nothing is */
    pid_t target; /* 0: not born yet */
    const char *program;
    bool with_children; /* of the target */
    unsigned long at, n;
};

static const struct {
    unsigned long number;
    const char *name;
    int path; /* the argument that is a path, -1: none; 8: a file descriptor */
} calls[] = {
#define CALL(name, path)        \
    {                           \
        SYS_##name, #name, path \
    }
    CALL(openat, 1),     CALL(write, 8),     CALL(pwrite64, 8),
    CALL(writev, 8),     CALL(sendmsg, 8),   CALL(sendto, 8),
    CALL(fsync, 8),      CALL(fdatasync, 8), CALL(ftruncate, 8),
    CALL(renameat, 1),   CALL(renameat2, 1), CALL(unlinkat, 1),
    CALL(mkdirat, 1),    CALL(linkat, 1),    CALL(symlinkat, 0),
    CALL(mknodat, 1),    CALL(mount, 1),     CALL(umount2, 0),
    CALL(move_mount, 1), CALL(clone, -1),    CALL(clone3, -1),
    CALL(execve, 0),     CALL(connect, 8),   CALL(bind, 8),
    CALL(fchmod, 8),     CALL(fchmodat, 1),  CALL(fchown, 8),
    CALL(fchownat, 1),   CALL(kill, -1),     CALL(pidfd_send_signal, 8),
    CALL(waitid, -1),    CALL(wait4, -1),    CALL(openat2, 1),
    CALL(splice, 8),     CALL(tee, 8),
#ifdef SYS_open
    CALL(open, 0),       CALL(rename, 0),    CALL(unlink, 0),
    CALL(mkdir, 0),      CALL(rmdir, 0),     CALL(link, 0),
    CALL(symlink, 0),    CALL(mknod, 0),     CALL(chmod, 0),
    CALL(chown, 0),      CALL(lchown, 0),    CALL(vfork, -1),
    CALL(fork, -1),
#endif
};

/* The calling thread's memory, for a path. */
static void read_string(pid_t pid, uint64_t address, char *ret, size_t size)
{
    struct iovec here = {ret, size - 1};
    struct iovec there = {(void *)(uintptr_t)address, size - 1};

    ssize_t n = process_vm_readv(pid, &here, 1, &there, 1, 0);
    while (n < 0 && there.iov_len > 16) { /* the page may end */
        there.iov_len = here.iov_len = there.iov_len / 2;
        n = process_vm_readv(pid, &here, 1, &there, 1, 0);
    }
    ret[n > 0 ? n : 0] = '\0';
}

static bool changes_something(const struct __ptrace_syscall_info *info)
{
    switch (info->entry.nr) {
    case SYS_openat:
        return info->entry.args[2] & (O_CREAT | O_TRUNC);
#ifdef SYS_open
    case SYS_open:
        return info->entry.args[1] & (O_CREAT | O_TRUNC);
#endif
    default:
        return true;
    }
}

static void describe(pid_t pid, const struct __ptrace_syscall_info *info, int path, char *ret,
                     size_t size)
{
    char link[64];

    *ret = '\0';
    if (path == 8) {
        snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, (int)info->entry.args[0]);
        ssize_t n = readlink(link, ret, size - 1);
        ret[n > 0 ? n : 0] = '\0';
    } else if (path >= 0) {
        read_string(pid, info->entry.args[path], ret, size);
    }
    for (char *c = ret; *c; c++)
        if (*c < ' ')
            *c = '?';
}

/* At the entry of a call of a thread of that process. True if it was the last one. */
static bool count_call(struct watch *w, pid_t pid, pid_t group)
{
    struct __ptrace_syscall_info info;
    char text[256];

    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return false;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (calls[i].number != info.entry.nr || !changes_something(&info))
            continue;
        describe(pid, &info, calls[i].path, text, sizeof(text));
        printf("%lu %s %s\n", ++w->n, calls[i].name, text);
        if (w->n == w->at) {
            kill(group, SIGKILL);
            return true;
        }
        break;
    }
    return false;
}

static int seize_threads(pid_t pid, unsigned long options)
{
    char path[64];
    pid_t known[THREADS_MAX];
    size_t n = 0;
    bool found = true;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    while (found) { /* until no thread was born meanwhile */
        found = false;
        DIR *dir = opendir(path);
        if (!dir)
            return -errno;
        for (struct dirent *entry; (entry = readdir(dir));) {
            pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
            bool is_known = thread == 0;
            for (size_t i = 0; i < n; i++)
                is_known |= known[i] == thread;
            if (is_known || n == THREADS_MAX)
                continue;
            if (ptrace(PTRACE_SEIZE, thread, 0, options) < 0 && errno != ESRCH && errno != EPERM) {
                closedir(dir);
                return -errno;
            }
            ptrace(PTRACE_INTERRUPT, thread, 0, 0);
            known[n++] = thread;
            found = true;
        }
        closedir(dir);
    }
    return 0;
}

/* What /proc/PID/status says behind this word, 0: nothing. */
static pid_t number_of(pid_t thread, const char *word)
{
    char path[64], line[256];
    int number = 0;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, word, strlen(word)) == 0) {
            number = (int)strtol(line + strlen(word), NULL, 10);
            break;
        }
    if (file)
        fclose(file);
    return number;
}

/* A process that is neither the daemon nor the target: a child that has just executed something, or
 * will. */
static void judge_child(struct watch *w, pid_t pid, int event)
{
    char path[64], exe[4096];

    if (event != PTRACE_EVENT_EXEC) {
        ptrace(PTRACE_CONT, pid, 0, 0);
        return;
    }
    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    ssize_t n = readlink(path, exe, sizeof(exe) - 1);
    exe[n > 0 ? n : 0] = '\0';
    const char *name = strrchr(exe, '/');
    if (!w->target && name && strcmp(name + 1, w->program) == 0) {
        w->target = pid;
        unsigned long children = w->with_children ? PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK : 0;
        ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD | children);
        ptrace(PTRACE_SYSCALL, pid, 0, 0);
    } else {
        ptrace(PTRACE_DETACH, pid, 0, 0);
    }
}

static bool is_watched(const struct watch *w, pid_t group)
{
    return w->target &&
           (group == w->target || (w->with_children && number_of(group, "PPid:") == w->target));
}

/* What a stop means, and on. True when it is over. */
static bool on_stop(struct watch *w, pid_t pid, int status)
{
    int event = status >> 16;
    int number = WSTOPSIG(status);
    pid_t group = number_of(pid, "Tgid:");

    if (is_watched(w, group)) {
        if (number == (SIGTRAP | 0x80) && count_call(w, pid, group))
            return true;
        int deliver = event || number == (SIGTRAP | 0x80) || number == SIGTRAP ? 0 : number;
        if (event == PTRACE_EVENT_STOP && number != SIGTRAP)
            ptrace(PTRACE_LISTEN, pid, 0, 0);
        else
            ptrace(PTRACE_SYSCALL, pid, 0, deliver);
    } else if (group == w->daemon) {
        ptrace(PTRACE_CONT, pid, 0, event || number == SIGTRAP ? 0 : number);
    } else {
        judge_child(w, pid, event);
    }
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: killpoint PID N [PROGRAM [+]]\n");
        return 2;
    }
    pid_t pid = (pid_t)strtol(argv[1], NULL, 10);
    struct watch w = {
        .at = strtoul(argv[2], NULL, 10),
        .program = argc >= 4 ? argv[3] : NULL,
        .with_children = argc == 5,
    };
    unsigned long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD;
    if (w.program) {
        w.daemon = pid;
        options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;
    } else {
        w.target = pid;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    int r = seize_threads(pid, options);
    if (r < 0) {
        fprintf(stderr, "killpoint: trace process %d: %s\n", (int)pid, strerror(-r));
        return 2;
    }
    puts("ready");
    for (;;) {
        int status;
        pid_t child = waitpid(-1, &status, __WALL);
        if (child < 0 && errno == EINTR)
            continue;
        if (child < 0)
            break;
        if (WIFSTOPPED(status)) {
            if (on_stop(&w, child, status)) {
                puts("killed");
                return 0;
            }
        } else if (child == w.target) {
            break;
        }
    }
    puts("ended");
    return 1;
}

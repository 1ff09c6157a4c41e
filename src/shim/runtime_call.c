/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/runtime_call.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/mman.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"

/* How much of log.json's end is looked at, and at which size it is begun anew. */
#define LOG_TAIL_MAX (64 * 1024)
#define LOG_FILE_MAX (1024 * 1024)
#define TEXT_MAX (ERR_MSG_MAX - 256)
/* Of one turn of the loop, so that a runtime that never stops printing starves nobody. */
#define DRAIN_MAX (256 * 1024)

const char *const runtime_hidden_variables[] = {
    "NOTIFY_SOCKET", "LISTEN_FDS",   "LISTEN_PID", "LISTEN_FDNAMES",
    "WATCHDOG_USEC", "WATCHDOG_PID", NULL};

struct runtime_call {
    struct list link; /* of the runtime's calls */
    struct reaper *reaper;
    struct runtime *runtime;
    struct child child;
    pid_t pid; /* and number of its group; good until fn has returned */
    struct event_fd output_source;
    struct event_timer deadline;
    struct buf output;
    int output_fd;
    off_t log_start;
    bool holds;
    bool timed_out;
    uint32_t timeout_ms;
    const char *command;
    runtime_call_fn fn;
    void *userdata;
};

void runtime_done(struct runtime *r)
{
    free(r->path);
    free(r->root);
    free(r->bundle);
    free(r->log);
    free(r->criu);
    runtime_program_done(&r->program);
    *r = (struct runtime)RUNTIME_NULL;
}

/* It may have left its group. */
static void kill_all(const struct runtime_call *call)
{
    runtime_call_kill_rest(call);
    proc_kill(&call->child.proc, SIGKILL);
}

void runtime_close(struct runtime *r)
{
    struct runtime_call *call;

    r->is_closed = true;
    LIST_FOREACH (call, &r->calls, link)
        if (child_is_alive(&call->child))
            kill_all(call); /* its end comes by the reaper */
}

const char *runtime_name(const struct runtime *r)
{
    const char *slash = r->path ? strrchr(r->path, '/') : NULL;
    return slash ? slash + 1 : str_or_empty(r->path);
}

int runtime_find(const char *name, char **ret, struct err *e)
{
    if (strchr(name, '/')) {
        if (name[0] != '/')
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "OCI runtime \"%.500s\" is neither an absolute path nor a name to be "
                           "looked up in $PATH: invalid argument",
                           name);
        char *copy = strdup(name);
        if (!copy)
            return err_oom(e);
        *ret = copy;
        return 0;
    }
    int r = proc_find_program(name, NULL, ret);
    if (r == -ENOENT)
        return err_set(e, ERR_UNKNOWN, "exec: \"%.500s\": executable file not found in $PATH",
                       name);
    return r < 0 ? err_errno(e, r, "failed to look for \"%.500s\" in $PATH", name) : 0;
}

bool runtime_is_missing(const struct err *e)
{
    return e->errnum == ENOENT || e->errnum == ENOTDIR || e->errnum == EACCES ||
           e->errnum == ENOEXEC;
}

void runtime_args_add(struct runtime_args *a, const char *arg)
{
    /* One too many marks the overflow, which runtime_call_new() refuses. */
    if (a->n < RUNTIME_ARGS_MAX)
        a->v[a->n] = arg;
    if (a->n <= RUNTIME_ARGS_MAX)
        a->n++;
}

void runtime_args_globals(struct runtime_args *a, const struct runtime *r)
{
    runtime_args_add(a, runtime_name(r));
    runtime_args_add(a, "--root");
    runtime_args_add(a, r->root);
    if (r->debug)
        runtime_args_add(a, "--debug");
    /* Somebody may have removed the bundle: a container can be ended without. */
    if (fs_exists(AT_FDCWD, r->bundle)) {
        runtime_args_add(a, "--log");
        runtime_args_add(a, r->log);
        runtime_args_add(a, "--log-format");
        runtime_args_add(a, "json");
    }
    if (r->criu && !str_eq(runtime_name(r), "crun")) {
        runtime_args_add(a, "--criu");
        runtime_args_add(a, r->criu);
    }
    if (r->systemd_cgroup)
        runtime_args_add(a, "--systemd-cgroup");
}

void runtime_clean_text(const char *text, size_t n, char *ret, size_t size)
{
    size_t at = 0;

    for (size_t i = 0; i < n && text[i];) {
        uint32_t c;
        int len = str_utf8_decode(text + i, n - i, &c);
        bool keep = len > 0 && c != 0xfffd && str_is_printable(c);
        size_t step = len > 0 ? (size_t)len : 1;
        if (at + (keep ? step : 1) >= size)
            break;
        if (keep) {
            memcpy(ret + at, text + i, step);
            at += step;
        } else if (at > 0 && ret[at - 1] != ' ') {
            ret[at++] = ' ';
        }
        i += step;
    }
    while (at > 0 && ret[at - 1] == ' ')
        at--;
    ret[at] = '\0';
}

bool runtime_log_last_error(const char *lines, size_t n, char *ret, size_t size)
{
    bool found = false;

    for (const char *end = lines + n; lines < end;) {
        const char *stop = memchr(lines, '\n', (size_t)(end - lines));
        size_t len = (size_t)((stop ? stop : end) - lines);
        json_t *line = json_loadb(lines, len, JSON_REJECT_DUPLICATES, NULL);
        const char *level = json_string_value(json_object_get(line, "level"));
        const char *msg = json_string_value(json_object_get(line, "msg"));
        if (!str_empty(msg) && (str_eq(level, "error") || str_eq(level, "fatal"))) {
            runtime_clean_text(msg, strlen(msg), ret, size);
            found = *ret != '\0';
        }
        json_decref(line);
        lines += len + 1;
    }
    return found;
}

static void call_delete(struct runtime_call *call)
{
    event_fd_remove(&call->output_source);
    event_timer_disarm(&call->deadline);
    close_fd(&call->output_fd);
    buf_done(&call->output);
    list_remove(&call->link);
    free(call);
}

void runtime_call_kill_rest(const struct runtime_call *call)
{
    kill(-call->pid, SIGKILL);
}

struct runtime_call *runtime_call_free(struct runtime_call *call)
{
    if (!call)
        return NULL;
    if (child_is_alive(&call->child))
        kill_all(call);
    reaper_forget(&call->child);
    struct reaper *reaper = call->holds ? call->reaper : NULL;
    call_delete(call);
    if (reaper)
        reaper_release(reaper);
    return NULL;
}

/* Takes what is there. Returns false at the end of the output. */
static bool drain(struct runtime_call *call)
{
    char chunk[4096];

    for (size_t taken = 0; taken < DRAIN_MAX;) {
        ssize_t n = read(call->output_fd, chunk, sizeof(chunk));
        if (n <= 0)
            return n < 0 && (errno == EAGAIN || errno == EINTR);
        size_t room = call->output.max - 1 - call->output.len; /* a NUL follows */
        buf_append(&call->output, chunk, MIN_OF((size_t)n, room));
        taken += (size_t)n;
    }
    return true;
}

static void on_output(struct event_fd *source, _unused_ uint32_t events)
{
    struct runtime_call *call = container_of(source, struct runtime_call, output_source);

    if (!drain(call)) {
        event_fd_remove(source);
        close_fd(&call->output_fd);
    }
}

static void on_deadline(struct event_timer *timer)
{
    struct runtime_call *call = container_of(timer, struct runtime_call, deadline);

    call->timed_out = true;
    kill_all(call); /* its end comes by the reaper */
}

void runtime_call_hurry(struct runtime_call *call, uint32_t timeout_ms)
{
    if (!child_is_alive(&call->child) || timeout_ms >= call->timeout_ms)
        return;
    call->timeout_ms = timeout_ms;
    event_timer_arm(call->reaper->loop, &call->deadline, timeout_ms, on_deadline);
}

/* The error among the lines written since the call began (calls side by side share the file). */
static bool read_log(const struct runtime_call *call, char *ret, size_t size)
{
    struct stat st;
    _close_ int fd = open(call->runtime->log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    off_t start = MIN_OF(call->log_start, st.st_size);
    start = MAX_OF(start, st.st_size - LOG_TAIL_MAX);
    size_t n = (size_t)(st.st_size - start);
    _free_ char *tail = malloc(n + 1);
    if (!tail || lseek(fd, start, SEEK_SET) < 0)
        return false;
    ssize_t got = fs_read_all(fd, tail, n);
    return got > 0 && runtime_log_last_error(tail, (size_t)got, ret, size);
}

static void describe_failure(struct runtime_call *call, int status, struct err *e)
{
    char text[TEXT_MAX];
    const char *name = runtime_name(call->runtime);

    if (call->timed_out) {
        err_set(e, ERR_DEADLINE_EXCEEDED, "%s %s was killed, it did not end in %u seconds", name,
                call->command, call->timeout_ms / 1000);
        return;
    }
    if (read_log(call, text, sizeof(text))) {
        err_set(e, ERR_UNKNOWN, "%s", text);
        return;
    }
    runtime_clean_text((const char *)buf_head(&call->output), call->output.len, text, sizeof(text));
    if (status > 128)
        err_set(e, ERR_UNKNOWN, "%s did not terminate successfully: signal %d%s%s", name,
                status - 128, *text ? ": " : "", text);
    else
        err_set(e, ERR_UNKNOWN, "%s did not terminate successfully: exit status %d%s%s", name,
                status, *text ? ": " : "", text);
}

static void on_ended(struct child *child, int status)
{
    struct runtime_call *call = container_of(child, struct runtime_call, child);
    struct err e = ERR_INIT;
    bool failed = status != 0 || call->timed_out;

    if (call->output_fd >= 0)
        drain(call); /* what it left in the pipe; others may hold it open for ever */
    if (failed) {
        runtime_call_kill_rest(call);
        describe_failure(call, status, &e);
    }
    if (buf_append(&call->output, "", 1) < 0)
        buf_clear(&call->output);
    const char *output = call->output.len > 0 ? (const char *)buf_head(&call->output) : "";
    struct reaper *reaper = call->reaper;
    bool holds = call->holds;
    list_remove(&call->link); /* fn may be the end of the runtime's owner */
    call->fn(call->userdata, failed ? &e : NULL, output);
    call_delete(call);
    if (holds)
        reaper_release(reaper); /* whoever was left to us has been adopted by now */
}

static int input_file(const char *text)
{
    _close_ int fd = neg_errno(memfd_create("input", MFD_CLOEXEC));
    if (fd < 0)
        return fd;
    int r = fs_write_all(fd, text, strlen(text));
    if (r < 0)
        return r;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* Where this call's lines will begin. What is no file goes: behind a link the runtime would write
 * into a file of somebody else's, and with a directory in its way it refuses every command. */
static off_t log_start(const struct runtime *r)
{
    struct stat st;

    if (lstat(r->log, &st) < 0)
        return 0;
    if (S_ISREG(st.st_mode) && st.st_size <= LOG_FILE_MAX)
        return st.st_size;
    if (S_ISDIR(st.st_mode))
        rmdir(r->log);
    else
        unlink(r->log);
    return 0;
}

static int spawn(struct runtime_call *call, const struct runtime_request *request, struct err *e)
{
    _close_ int input_fd = -EBADF;
    _close_ int output_write = -EBADF;
    _cleanup_(proc_done) struct proc p = PROC_NULL;
    int fds[3] = {-EBADF, -EBADF, -EBADF};
    int pipe_fds[2];

    if (request->input) {
        input_fd = input_file(request->input);
        if (input_fd < 0)
            return err_errno(e, input_fd, "failed to make the input of the OCI runtime");
    }
    if (request->fds) {
        memcpy(fds, request->fds, sizeof(fds));
    } else {
        if (pipe2(pipe_fds, O_CLOEXEC) < 0)
            return err_errno(e, -errno, "failed to make a pipe for the OCI runtime");
        call->output_fd = pipe_fds[0];
        output_write = pipe_fds[1];
        fds[0] = input_fd;
        fds[1] = fds[2] = output_write;
        int r = fs_set_nonblock(call->output_fd, true);
        if (r == 0)
            r = event_fd_add(call->reaper->loop, &call->output_source, call->output_fd, EPOLLIN,
                             on_output);
        if (r < 0)
            return err_errno(e, r, "failed to watch the output of the OCI runtime");
    }
    const struct proc_spawn s = {
        .path = call->runtime->path,
        .exec_fd = runtime_program_fd(&call->runtime->program, call->runtime->path),
        .argv = request->args->v,
        .envp = (const char *const *)call->runtime->environment,
        .cwd = fs_exists(AT_FDCWD, call->runtime->bundle) ? call->runtime->bundle : "/",
        .fds = fds,
        .n_fds = 3,
        .new_group = true,
        .parent_death_signal = SIGKILL,
    };
    int r = proc_spawn(&s, &p);
    if (r < 0)
        return err_errno(e, r, "fork/exec %s", call->runtime->path);
    call->pid = p.pid;
    call->child.reap_last = true;
    r = reaper_watch(call->reaper, &call->child, &p, on_ended);
    if (r < 0) {
        int status;
        proc_kill(&p, SIGKILL);
        proc_reap(&p, true, &status);
        return err_errno(e, r, "failed to watch %s", call->runtime->path);
    }
    return 0;
}

int runtime_call_new(struct reaper *reaper, struct runtime *r,
                     const struct runtime_request *request, runtime_call_fn fn, void *userdata,
                     struct runtime_call **ret, struct err *e)
{
    if (request->args->n > RUNTIME_ARGS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "too many arguments for the OCI runtime: invalid argument");
    if (r->is_closed)
        return err_set(e, ERR_UNAVAILABLE,
                       "%s is not called any more, the service ends: unavailable", runtime_name(r));
    struct runtime_call *call = calloc(1, sizeof(*call));
    if (!call)
        return err_oom(e);
    *call = (struct runtime_call){
        .reaper = reaper,
        .runtime = r,
        .child = CHILD_INIT,
        .output = BUF_INIT(MAX_OF(request->max_output, (size_t)RUNTIME_OUTPUT_MAX) + 1),
        .output_fd = -EBADF,
        .command = request->command,
        .log_start = log_start(r),
        .timeout_ms = request->timeout_ms,
        .fn = fn,
        .userdata = userdata,
    };
    list_push_back(&r->calls, &call->link);
    /* The end may come before this returns to the loop, so the hold is taken first. */
    if (request->leaves_process) {
        reaper_hold(reaper);
        call->holds = true;
    }
    if (spawn(call, request, e) < 0) {
        runtime_call_free(call);
        return ERR_RETURN;
    }
    event_timer_arm(reaper->loop, &call->deadline, request->timeout_ms, on_deadline);
    log_debug("%s %s started as process %d", runtime_name(r), call->command,
              (int)call->child.proc.pid);
    *ret = call;
    return 0;
}

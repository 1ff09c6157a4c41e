/* SPDX-License-Identifier: Apache-2.0 */
#include "service/worker_job.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "oci/document.h"

#define RESULT_MAX 65536
#define LOOK_MS 50 /* how often the call is looked at while a job runs */
#define FIRST_PARENT_FD 4

struct worker {
    struct proc proc;
    int result_fd;
    struct buf result;
};

static int start(const struct worker_apply *job, struct worker *w, struct err *e)
{
    int fds[FIRST_PARENT_FD + WORKER_PARENTS_MAX];
    char parents[16];
    const char *argv[16];
    const char *const envp[] = {NULL};
    struct proc_spawn spawn = PROC_SPAWN_INIT;
    _close_ int write_fd = -EBADF;
    int pipe_fds[2];
    size_t n = 0;
    int r;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "make a pipe");
    w->result_fd = pipe_fds[0];
    write_fd = pipe_fds[1];
    fds[0] = job->blob_fd;
    fds[1] = write_fd;
    fds[2] = STDERR_FILENO;
    fds[3] = job->target_fd;
    for (size_t i = 0; i < job->n_parents; i++)
        fds[FIRST_PARENT_FD + i] = job->parent_fds[i];
    snprintf(parents, sizeof(parents), "%zu", job->n_parents);
    argv[n++] = "wherry-worker";
    argv[n++] = "apply";
    argv[n++] = "--format";
    argv[n++] = job->format;
    argv[n++] = "--whiteouts";
    argv[n++] = job->whiteouts;
    if (job->n_parents > 0) {
        argv[n++] = "--parents";
        argv[n++] = parents;
    }
    if (job->sync)
        argv[n++] = "--sync";
    argv[n] = NULL;
    spawn.path = job->worker_path;
    spawn.argv = argv;
    spawn.envp = envp;
    spawn.fds = fds;
    spawn.n_fds = FIRST_PARENT_FD + job->n_parents;
    spawn.parent_death_signal = SIGKILL;
    r = proc_spawn(&spawn, &w->proc);
    return r < 0 ? err_errno(e, r, "start %s", job->worker_path) : 0;
}

/* 1: more may come, 0: the end of the result, negative. */
static int read_some(struct worker *w)
{
    uint8_t *room;
    ssize_t n;
    int r = buf_reserve(&w->result, 4096, &room);

    if (r < 0)
        return r;
    n = neg_errno(read(w->result_fd, room, 4096));
    if (n == -EINTR)
        return 1;
    if (n <= 0)
        return (int)n;
    buf_commit(&w->result, (size_t)n);
    return 1;
}

/* Until the worker has closed its result, or the call is over (-ECANCELED). */
static int read_result(struct worker *w, const struct grpc_call *call)
{
    struct pollfd p = {.fd = w->result_fd, .events = POLLIN};
    int r = 1;

    while (r > 0) {
        if (call && grpc_call_is_cancelled(call))
            return -ECANCELED;
        r = neg_errno(poll(&p, 1, call ? LOOK_MS : -1));
        if (r > 0)
            r = read_some(w);
        else if (r == 0 || r == -EINTR)
            r = 1;
    }
    return r;
}

static int copy_digest(const json_t *object, const char *key, char out[DIGEST_STR_MAX],
                       struct err *e)
{
    _free_ char *text = NULL;
    int r = document_string(object, key, &text, e);

    if (r < 0)
        return r;
    if (!digest_is_valid(text))
        return err_set(e, ERR_INTERNAL, "the layer worker's result has no valid \"%s\"", key);
    snprintf(out, DIGEST_STR_MAX, "%s", text);
    return 0;
}

static int parse_result(const struct worker *w, struct worker_applied *ret, struct err *e)
{
    _json_ json_t *object = NULL;
    _free_ char *error = NULL;
    struct worker_applied a = {};
    int64_t code = ERR_UNKNOWN;
    int r;

    r = document_parse(buf_head(&w->result), w->result.len, RESULT_MAX,
                       "result of the layer worker", &object, e);
    if (r >= 0)
        r = document_string(object, "error", &error, e);
    if (r >= 0)
        r = document_int(object, "code", &code, e);
    if (r < 0)
        return r;
    if (error)
        return err_set(
            e, code > ERR_OK && code <= ERR_UNAUTHENTICATED ? (enum err_code)code : ERR_UNKNOWN,
            "%s", error);
    r = copy_digest(object, "digest", a.digest, e);
    if (r >= 0)
        r = copy_digest(object, "blob_digest", a.blob_digest, e);
    if (r >= 0)
        r = document_int(object, "size", &a.size_bytes, e);
    if (r >= 0)
        r = document_int(object, "blob_size", &a.blob_size_bytes, e);
    if (r < 0)
        return r;
    *ret = a;
    return 0;
}

/* What its end says beside what it wrote. */
static int judge(const struct worker *w, int status, struct worker_applied *ret, struct err *e)
{
    if (status == 0 || (status == 1 && w->result.len > 0))
        return parse_result(w, ret, e);
    if (status > 128)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "the layer worker was ended by signal %d (%s): a limit, or its sandbox",
                       status - 128, strsignal(status - 128));
    return err_set(e, ERR_INTERNAL, "the layer worker failed with status %d", status);
}

int worker_apply(const struct worker_apply *job, struct worker_applied *ret, struct err *e)
{
    struct worker w = {.proc = PROC_NULL, .result_fd = -EBADF, .result = BUF_INIT(RESULT_MAX)};
    int status = 0, r, reaped;

    if (job->n_parents > WORKER_PARENTS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "more than %d parents: invalid argument",
                       WORKER_PARENTS_MAX);
    r = start(job, &w, e);
    if (r >= 0) {
        r = read_result(&w, job->call);
        if (r < 0)
            proc_kill(&w.proc, SIGKILL);
        reaped = proc_reap(&w.proc, true, &status);
        if (r == -ECANCELED)
            err_set(e, ERR_CANCELED, "context canceled");
        else if (r < 0)
            err_errno(e, r, "read the result of the layer worker");
        else if (reaped < 0)
            r = err_errno(e, reaped, "wait for the layer worker");
        else
            r = judge(&w, status, ret, e);
    }
    proc_done(&w.proc);
    close_fd(&w.result_fd);
    buf_done(&w.result);
    return r;
}

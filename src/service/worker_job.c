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
#define LAYER_PIPE_BYTES (1024 * 1024)
#define LAYER_BLOCK_BYTES (256 * 1024)

struct worker {
    struct proc proc;
    int result_fd;
    struct buf result;
};
#define WORKER_INIT                                                             \
    {                                                                           \
        .proc = PROC_NULL, .result_fd = -EBADF, .result = BUF_INIT(RESULT_MAX), \
    }

/* fds[1] is set here: the result. */
static int spawn_worker(const char *path, const char *const *argv, int *fds, size_t n_fds,
                        struct worker *w, struct err *e)
{
    const char *const envp[] = {NULL};
    struct proc_spawn spawn = PROC_SPAWN_INIT;
    _close_ int write_fd = -EBADF;
    int pipe_fds[2];
    int r;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "make a pipe");
    w->result_fd = pipe_fds[0];
    write_fd = pipe_fds[1];
    fds[1] = write_fd;
    fds[2] = STDERR_FILENO;
    spawn.path = path;
    spawn.argv = argv;
    spawn.envp = envp;
    spawn.fds = fds;
    spawn.n_fds = n_fds;
    spawn.parent_death_signal = SIGKILL;
    r = proc_spawn(&spawn, &w->proc);
    return r < 0 ? err_errno(e, r, "start %s", path) : 0;
}

static int start_apply(const struct worker_apply *job, struct worker *w, struct err *e)
{
    int fds[FIRST_PARENT_FD + WORKER_PARENTS_MAX];
    char parents[16];
    const char *argv[16];
    size_t n = 0;

    fds[0] = job->blob_fd;
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
    return spawn_worker(job->worker_path, argv, fds, FIRST_PARENT_FD + job->n_parents, w, e);
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

/* The result, unless it is an error. */
static int parse_result(const struct worker *w, json_t **ret, struct err *e)
{
    _json_ json_t *object = NULL;
    _free_ char *error = NULL;
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
    *ret = TAKE(object);
    return 0;
}

/* What its end says beside what it wrote. */
static int judge(const struct worker *w, int status, json_t **ret, struct err *e)
{
    if (status == 0 || (status == 1 && w->result.len > 0))
        return parse_result(w, ret, e);
    if (status > 128)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "the layer worker was ended by signal %d (%s): a limit, or its sandbox",
                       status - 128, strsignal(status - 128));
    return err_set(e, ERR_INTERNAL, "the layer worker failed with status %d", status);
}

/* The end of a worker: r is how reading from it ended. */
static int finish(struct worker *w, int r, json_t **ret, struct err *e)
{
    int status = 0, reaped;

    if (r < 0)
        proc_kill(&w->proc, SIGKILL);
    reaped = proc_reap(&w->proc, true, &status);
    if (r == -ECANCELED)
        return err_set(e, ERR_CANCELED, "context canceled");
    if (r == ERR_RETURN)
        return r;
    if (r < 0)
        return err_errno(e, r, "read the result of the layer worker");
    if (reaped < 0)
        return err_errno(e, reaped, "wait for the layer worker");
    return judge(w, status, ret, e);
}

static void worker_done(struct worker *w)
{
    proc_done(&w->proc);
    close_fd(&w->result_fd);
    buf_done(&w->result);
}

static int read_applied(const json_t *object, struct worker_applied *ret, struct err *e)
{
    struct worker_applied a = {};
    int r;

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

int worker_apply(const struct worker_apply *job, struct worker_applied *ret, struct err *e)
{
    _cleanup_(worker_done) struct worker w = WORKER_INIT;
    _json_ json_t *object = NULL;
    int r;

    if (job->n_parents > WORKER_PARENTS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "more than %d parents: invalid argument",
                       WORKER_PARENTS_MAX);
    r = start_apply(job, &w, e);
    if (r < 0)
        return r;
    r = finish(&w, read_result(&w, job->call), &object, e);
    return r < 0 ? r : read_applied(object, ret, e);
}

int worker_check_blob(const struct worker_applied *applied, const char *digest, struct err *e)
{
    if (str_eq(applied->blob_digest, digest))
        return 0;
    return err_set(e, ERR_FAILED_PRECONDITION,
                   "content %s is damaged on disk: its bytes have digest %s: failed precondition",
                   digest, applied->blob_digest);
}

/* *ret_fd: where the layer comes out. */
static int start_diff(const struct worker_diff *job, struct worker *w, int *ret_fd, struct err *e)
{
    int fds[] = {-EBADF, -EBADF, -EBADF, job->right_fd, job->left_fd};
    _close_ int write_fd = -EBADF;
    const char *argv[16];
    char newest[48];
    int pipe_fds[2];
    size_t n = 0;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "make a pipe");
    *ret_fd = pipe_fds[0];
    fds[0] = write_fd = pipe_fds[1];
    (void)fcntl(write_fd, F_SETPIPE_SZ, LAYER_PIPE_BYTES); /* fewer changes of process */
    argv[n++] = "wherry-worker";
    argv[n++] = "diff";
    argv[n++] = "--format";
    argv[n++] = job->format;
    if (job->left_fd >= 0) {
        argv[n++] = "--parents";
        argv[n++] = "1";
    }
    if (job->has_newest) {
        snprintf(newest, sizeof(newest), "%lld.%09ld", (long long)job->newest.tv_sec,
                 job->newest.tv_nsec);
        argv[n++] = "--newest";
        argv[n++] = newest;
    }
    argv[n] = NULL;
    return spawn_worker(job->worker_path, argv, fds, job->left_fd >= 0 ? 5 : 4, w, e);
}

/* 1, 0 at the end of the layer, negative. */
static int pass_on(const struct worker_diff *job, int fd, uint8_t *block, struct err *e)
{
    ssize_t n = neg_errno(read(fd, block, LAYER_BLOCK_BYTES));

    if (n == -EINTR)
        return 1;
    if (n <= 0)
        return (int)n;
    return job->fn(job->sink, block, (size_t)n, e) < 0 ? ERR_RETURN : 1;
}

/* To the end of the layer; the result is no more than the pipe holds, and comes last. */
static int read_layer(const struct worker_diff *job, int fd, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    _free_ uint8_t *block = malloc(LAYER_BLOCK_BYTES);
    int r = block ? 1 : -ENOMEM;

    while (r > 0) {
        if (job->call && grpc_call_is_cancelled(job->call))
            return -ECANCELED;
        r = neg_errno(poll(&p, 1, job->call ? LOOK_MS : -1));
        if (r > 0)
            r = pass_on(job, fd, block, e);
        else if (r == 0 || r == -EINTR)
            r = 1;
    }
    return r;
}

int worker_diff(const struct worker_diff *job, char ret_digest[DIGEST_STR_MAX], struct err *e)
{
    _cleanup_(worker_done) struct worker w = WORKER_INIT;
    _close_ int layer_fd = -EBADF;
    _json_ json_t *object = NULL;
    char digest[DIGEST_STR_MAX] = "";
    int r;

    r = start_diff(job, &w, &layer_fd, e);
    if (r < 0)
        return r;
    r = read_layer(job, layer_fd, e);
    if (r >= 0)
        r = read_result(&w, job->call);
    r = finish(&w, r, &object, e);
    if (r >= 0 && !str_eq(job->format, "tar"))
        r = copy_digest(object, "digest", digest, e);
    if (r < 0)
        return r;
    memcpy(ret_digest, digest, sizeof(digest));
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The process's ends of its standard streams, and the client's. */
#include <fcntl.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "shim/stdio.h"

/* A reader is looked for this often, at first and at last. */
#define OPEN_RETRY_MIN_MS 2
#define OPEN_RETRY_MAX_MS 100

enum scheme { SCHEME_NONE, SCHEME_PATH, SCHEME_FILE, SCHEME_BINARY, SCHEME_UNKNOWN };

static enum scheme scheme_of(const char *path)
{
    if (str_empty(path))
        return SCHEME_NONE;
    const char *colon = strstr(path, "://");
    if (!colon || path[0] == '/')
        return SCHEME_PATH;
    if (str_after_prefix(path, "fifo://"))
        return SCHEME_PATH;
    if (str_after_prefix(path, "file://"))
        return SCHEME_FILE;
    if (str_after_prefix(path, "binary://") || str_after_prefix(path, "binary-v2://"))
        return SCHEME_BINARY;
    return SCHEME_UNKNOWN;
}

static int make_pipe(struct stdio *io, const struct stdio_request *request, int *ret_child,
                     int *ret_ours, bool child_reads)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    *ret_child = fds[child_reads ? 0 : 1];
    *ret_ours = fds[child_reads ? 1 : 0];
    if ((request->io_uid || request->io_gid) &&
        fchown(*ret_child, request->io_uid, request->io_gid) < 0)
        return -errno;
    return fs_set_nonblock(*ret_ours, true);
}

/* What is no fifo is copied through a pipe all the same: with the fd of a file of the host a
 * container could open that file for writing, and with the fd of a directory leave its root. */
static int open_input_file(struct stdio *io, const char *path, struct err *e)
{
    struct stat st;
    int fd = neg_errno(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));

    int r = fd < 0 ? fd : neg_errno(fstat(fd, &st));
    if (r >= 0 && S_ISDIR(st.st_mode))
        r = -EISDIR;
    io->input_source_fd = fd;
    return r < 0 ? err_errno(e, r, "failed to open stdin %.500s", path) : 0;
}

static int open_input(struct stdio *io, const struct stdio_request *request, struct err *e)
{
    const char *path = request->stdin_path;
    const char *plain = path ? str_after_prefix(path, "fifo://") : NULL;

    if (plain)
        path = plain;
    if (str_empty(path))
        return 0;
    int fifo = stdio_is_fifo(path);
    if (fifo < 0)
        return err_errno(e, fifo, "failed to open stdin fifo %.500s", path);
    if (fifo == 0 && io->terminal)
        return 0; /* its end would hang the terminal up at once */
    if (fifo == 0 && open_input_file(io, path, e) < 0)
        return ERR_RETURN;
    io->input_path = strdup(path);
    if (!io->input_path)
        return err_oom(e);
    if (!io->terminal) {
        int r = make_pipe(io, request, &io->child_fds[0], &io->input_target_fd, true);
        if (r < 0)
            return err_errno(e, r, "failed to make a pipe for stdin");
    }
    return 0;
}

static void on_logger_ready(void *userdata, const struct err *e)
{
    struct stdio *io = userdata;
    stdio_opened_fn opened = io->opened;

    io->logger_is_ready = !e;
    io->opened = NULL;
    if (opened)
        opened(io, e);
}

/* The logging program reads from pipes whose write ends become our targets: with a terminal the
 * copy writes the first one, without one the container writes them itself. */
static int open_logger(struct stdio *io, const struct stdio_request *request, struct err *e)
{
    _close_ int out_read = -EBADF;
    _close_ int err_read = -EBADF;
    int out[2], error[2];

    if (pipe2(out, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "failed to make a pipe for the logging program");
    out_read = out[0];
    int *out_write = io->terminal ? &io->output[0].target_fd : &io->child_fds[1];
    *out_write = out[1];
    if (pipe2(error, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "failed to make a pipe for the logging program");
    err_read = error[0];
    int *err_write = io->terminal ? &io->output[1].target_fd : &io->child_fds[2];
    *err_write = error[1];
    if (io->terminal) {
        int r = fs_set_nonblock(*out_write, true);
        if (r < 0)
            return err_errno(e, r, "failed to set up a pipe for the logging program");
    } else if (request->io_uid || request->io_gid) {
        if (fchown(*out_write, request->io_uid, request->io_gid) < 0 ||
            fchown(*err_write, request->io_uid, request->io_gid) < 0)
            return err_errno(e, -errno, "failed to set the owner of a pipe");
    }
    return logger_new(io->reaper, request->stdout_path, request->namespace_, request->id,
                      request->bundle, out_read, err_read, on_logger_ready, io, &io->logger, e);
}

static int open_output(struct stdio *io, const struct stdio_request *request, size_t i,
                       enum scheme scheme, struct err *e)
{
    struct stdio_output *o = &io->output[i];
    const char *path =
        i == 0 || scheme == SCHEME_FILE ? request->stdout_path : request->stderr_path;

    int r = scheme == SCHEME_FILE ? stdio_output_open_uri(o, path, e)
                                  : stdio_output_open_path(o, path, e);
    if (r < 0 || io->terminal)
        return r;
    r = make_pipe(io, request, &io->child_fds[1 + i], &o->source_fd, false);
    return r < 0 ? err_errno(e, r, "failed to make a pipe for output") : 0;
}

static bool wants_reader(const struct stdio *io)
{
    return io->output[0].path || io->output[1].path;
}

static void on_open_timer(struct event_timer *timer);

/* Tries what is left to be opened. Returns true when that is nothing, or on failure (e is set). */
static bool open_fifos(struct stdio *io, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++) {
        struct stdio_output *o = &io->output[i];
        int r = o->path ? stdio_output_try_fifo(o) : 0;
        if (r < 0) {
            err_errno(e, r,
                      "failed to start io pipe copy: unable to copy pipes: containerd-shim: "
                      "opening w/o fifo \"%.500s\" failed",
                      o->path);
            return true;
        }
    }
    if (!wants_reader(io))
        return true;
    uint64_t now = clock_monotonic_ms();
    if (now >= io->deadline_ms) {
        const char *path = io->output[0].path ? io->output[0].path : io->output[1].path;
        err_set(e, ERR_UNKNOWN,
                "failed to start io pipe copy: unable to copy pipes: containerd-shim: opening w/o "
                "fifo \"%.500s\" failed: context deadline exceeded",
                path);
        return true;
    }
    /* Nothing tells when a fifo gets its first reader, so this looks, ever more rarely. */
    uint64_t waited = STDIO_OPEN_TIMEOUT_MS - (io->deadline_ms - now);
    uint64_t pause =
        MIN_OF(MAX_OF(waited / 4, (uint64_t)OPEN_RETRY_MIN_MS), (uint64_t)OPEN_RETRY_MAX_MS);
    event_timer_arm(io->reaper->loop, &io->timer, pause, on_open_timer);
    return false;
}

static void on_open_timer(struct event_timer *timer)
{
    struct stdio *io = container_of(timer, struct stdio, timer);
    struct err e = ERR_INIT;

    if (!open_fifos(io, &e))
        return;
    stdio_opened_fn opened = io->opened;
    io->opened = NULL;
    if (opened)
        opened(io, e.code == ERR_OK ? NULL : &e);
}

static int open_streams(struct stdio *io, const struct stdio_request *request, enum scheme scheme,
                        struct err *e)
{
    if (scheme == SCHEME_UNKNOWN) {
        const char *s = request->stdout_path;
        return err_set(e, ERR_UNKNOWN, "unknown STDIO scheme %.*s",
                       (int)MIN_OF(strcspn(s, ":"), (size_t)100), s);
    }
    if (io->terminal && console_socket_init(&io->console, request->bundle, request->name, e) < 0)
        return ERR_RETURN;
    if (scheme == SCHEME_BINARY)
        return open_logger(io, request, e);
    if (open_input(io, request, e) < 0)
        return ERR_RETURN;
    if (scheme == SCHEME_NONE && io->terminal)
        return stdio_output_open_path(&io->output[0], "/dev/null",
                                      e); /* or the terminal would fill up */
    if (scheme == SCHEME_NONE && str_empty(request->stderr_path))
        return 0;
    if (open_output(io, request, 0, scheme, e) < 0)
        return ERR_RETURN;
    return io->terminal ? 0 : open_output(io, request, 1, scheme, e);
}

/* Whose working directory that would be otherwise depends on who serves the container. */
static int put_into_bundle(const char **path, const char *bundle, char **ret)
{
    if (scheme_of(*path) != SCHEME_PATH || **path == '/' || strstr(*path, "://"))
        return 0;
    *ret = fs_join(bundle, *path);
    if (!*ret)
        return -ENOMEM;
    *path = *ret;
    return 0;
}

int stdio_open(struct stdio *io, const struct stdio_request *from, stdio_opened_fn opened,
               struct err *e)
{
    enum scheme scheme = scheme_of(from->stdout_path);
    struct stdio_request absolute = *from;
    const struct stdio_request *request = &absolute;
    _free_ char *in = NULL;
    _free_ char *out = NULL;
    _free_ char *error = NULL;

    if (put_into_bundle(&absolute.stdin_path, from->bundle, &in) < 0 ||
        put_into_bundle(&absolute.stdout_path, from->bundle, &out) < 0 ||
        put_into_bundle(&absolute.stderr_path, from->bundle, &error) < 0)
        return err_oom(e);
    io->terminal = request->terminal;
    io->opened = opened;
    io->deadline_ms = clock_monotonic_ms() + STDIO_OPEN_TIMEOUT_MS;
    if (open_streams(io, request, scheme, e) < 0 || (open_fifos(io, e) && e->code != ERR_OK)) {
        stdio_done(io);
        return ERR_RETURN;
    }
    if (!io->logger && !wants_reader(io)) {
        io->opened = NULL;
        opened(io, NULL);
    }
    return 0;
}

void stdio_hurry_opening(struct stdio *io)
{
    if (io->opened && wants_reader(io))
        event_timer_arm(io->reaper->loop, &io->timer, 0, on_open_timer);
}

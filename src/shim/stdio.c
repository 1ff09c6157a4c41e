/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/stdio.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"

/* A reader is looked for this often, at first and at last. */
#define OPEN_RETRY_MIN_MS 2
#define OPEN_RETRY_MAX_MS 100

enum scheme { SCHEME_NONE, SCHEME_PATH, SCHEME_FILE, SCHEME_BINARY, SCHEME_UNKNOWN };

void stdio_init(struct stdio *io, struct reaper *reaper)
{
    *io = (struct stdio){
        .reaper = reaper,
        .console = CONSOLE_SOCKET_INIT,
        .master_fd = -EBADF,
        .child_fds = {-EBADF, -EBADF, -EBADF},
        .input_source_fd = -EBADF,
        .input_target_fd = -EBADF,
        .input_holder_fd = -EBADF,
    };
    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++)
        io->output[i] = (struct stdio_output){
            .io = io, .source_fd = -EBADF, .target_fd = -EBADF, .rest_fd = -EBADF};
}

static uint64_t bytes_in_pipe(int fd)
{
    struct stat st;
    int n = 0;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode) || ioctl(fd, FIONREAD, &n) < 0)
        return 0;
    return (uint64_t)n;
}

/* The reader sees the end when we have closed, but may need a while to get there. Our own reader
 * keeps nothing from it. */
static void keep_rest(struct stdio_output *o)
{
    char path[32];

    if (o->rest_fd >= 0 || bytes_in_pipe(o->target_fd) == 0)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", o->target_fd);
    o->rest_fd = neg_errno(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
}

static void close_output(struct stdio_output *o)
{
    copy_stop(&o->copy);
    close_fd(&o->source_fd);
    close_fd(&o->target_fd);
    free(o->path);
    o->path = NULL;
}

void stdio_end_input(struct stdio *io)
{
    copy_stop(&io->input);
    close_fd(&io->input_source_fd);
    close_fd(&io->input_target_fd);
    close_fd(&io->input_holder_fd);
    free(io->input_path);
    io->input_path = NULL;
}

static void close_streams(struct stdio *io)
{
    event_timer_disarm(&io->timer);
    stdio_end_input(io);
    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++)
        close_output(&io->output[i]);
    stdio_forget_rest(io);
    stdio_release_child(io);
    console_socket_done(&io->console);
    close_fd(&io->master_fd);
}

void stdio_done(struct stdio *io)
{
    close_streams(io);
    io->logger = logger_free(io->logger);
    io->opened = NULL;
    io->finished = NULL;
}

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

/* Whether path is a fifo; 0, 1 or negative errno. */
static int is_fifo(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    return S_ISFIFO(st.st_mode);
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
    int fifo = is_fifo(path);
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

/* A link may stand for a file that is there, but none is made through one: it would be made
 * wherever the owner of the link likes. O_EXCL is what says so to open(2). */
static int open_log_file(const char *path)
{
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = neg_errno(open(path, flags));

    if (fd == -ENOENT)
        fd = neg_errno(open(path, flags | O_CREAT | O_EXCL, 0644));
    if (fd == -EEXIST) /* somebody was faster, or it is a link to nothing */
        fd = neg_errno(open(path, flags));
    return fd;
}

static int open_file_uri(struct stdio_output *o, const char *uri, struct err *e)
{
    const char *path = str_after_prefix(uri, "file://");
    _free_ char *parent = strdup(path);

    if (!parent)
        return err_oom(e);
    char *slash = strrchr(parent, '/');
    if (path[0] != '/' || !slash[1])
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "log file \"%.500s\" is not an absolute path: invalid argument", uri);
    *slash = '\0';
    int r = *parent ? fs_mkdir_p(AT_FDCWD, parent, 0755) : 0;
    if (r < 0)
        return err_errno(e, r, "failed to make directory %.500s", parent);
    o->target_fd = open_log_file(path);
    if (o->target_fd < 0)
        return err_errno(e, o->target_fd, "failed to open log file %.500s", path);
    return 0;
}

/* A fifo is only noted: it is opened when somebody reads it. */
static int open_path(struct stdio_output *o, const char *path, struct err *e)
{
    const char *plain = path ? str_after_prefix(path, "fifo://") : NULL;

    if (plain)
        path = plain;
    if (str_empty(path))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "stdout and stderr must both be given: open : no such file or directory");
    int r = is_fifo(path);
    if (r < 0)
        return err_errno(e, r, "containerd-shim: opening %.500s failed", path);
    if (r == 1) {
        o->path = strdup(path);
        return o->path ? 0 : err_oom(e);
    }
    o->target_fd = neg_errno(open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (o->target_fd < 0)
        return err_errno(e, o->target_fd, "containerd-shim: opening %.500s failed", path);
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

    int r = scheme == SCHEME_FILE ? open_file_uri(o, path, e) : open_path(o, path, e);
    if (r < 0 || io->terminal)
        return r;
    r = make_pipe(io, request, &io->child_fds[1 + i], &o->source_fd, false);
    return r < 0 ? err_errno(e, r, "failed to make a pipe for output") : 0;
}

static bool wants_reader(const struct stdio *io)
{
    return io->output[0].path || io->output[1].path;
}

/* Opens an output fifo if somebody reads it: 1, 0 when nobody does yet, negative errno. */
static int try_open_fifo(struct stdio_output *o)
{
    _close_ int probe = neg_errno(open(o->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC));

    if (probe == -ENXIO)
        return 0;
    if (probe < 0)
        return probe;
    int fd = neg_errno(open(o->path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (fd < 0)
        return fd;
    o->target_fd = fd;
    free(o->path);
    o->path = NULL;
    return 1;
}

static void on_open_timer(struct event_timer *timer);

/* Tries what is left to be opened. Returns true when that is nothing, or on failure (e is set). */
static bool open_fifos(struct stdio *io, struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++) {
        struct stdio_output *o = &io->output[i];
        int r = o->path ? try_open_fifo(o) : 0;
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
        return open_path(&io->output[0], "/dev/null", e); /* or the terminal would fill up */
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

const char *stdio_console_path(const struct stdio *io)
{
    return io->terminal ? io->console.path : NULL;
}

const int *stdio_child_fds(const struct stdio *io)
{
    return io->terminal ? NULL : io->child_fds;
}

void stdio_release_child(struct stdio *io)
{
    for (size_t i = 0; i < ARRAY_SIZE(io->child_fds); i++)
        close_fd(&io->child_fds[i]);
}

static bool is_copying_output(const struct stdio *io)
{
    return copy_is_running(&io->output[0].copy) || copy_is_running(&io->output[1].copy);
}

static void finish(struct stdio *io)
{
    stdio_finished_fn finished = io->finished;

    io->finished = NULL;
    if (finished)
        finished(io);
}

static void on_logger_ended(void *userdata)
{
    struct stdio *io = userdata;

    io->logger = logger_free(io->logger);
    finish(io);
}

static void finish_streams(struct stdio *io)
{
    close_streams(io);
    if (io->logger)
        logger_finish(io->logger, on_logger_ended, io);
    else
        finish(io);
}

static void on_output_ended(struct copy *copy);

/* Nobody takes the output any more: it is read all the same, or the process would wait for ever. */
static int discard_output(struct stdio_output *o)
{
    int fd = neg_errno(open("/dev/null", O_WRONLY | O_CLOEXEC));

    if (fd < 0)
        return fd;
    log_warn("whoever took the output of a container has gone: what comes is dropped");
    close_fd(&o->target_fd);
    o->target_fd = fd;
    return copy_start(&o->copy, o->io->reaper->loop, o->source_fd, fd, on_output_ended);
}

/* Output is over: let the client see it. */
static void on_output_ended(struct copy *copy)
{
    struct stdio_output *o = container_of(copy, struct stdio_output, copy);

    if (!copy->src_ended && discard_output(o) == 0)
        return;
    keep_rest(o);
    close_output(o);
    if (o->io->finished && !is_copying_output(o->io))
        finish_streams(o->io);
}

/* The client's input is over: for a pipe that is the end of file, a terminal is hung up. */
static void on_input_ended(struct copy *copy)
{
    struct stdio *io = container_of(copy, struct stdio, input);
    bool hang_up = io->terminal && copy->src_ended;

    stdio_end_input(io);
    if (hang_up) {
        close_output(&io->output[0]);
        close_fd(&io->master_fd);
    }
}

static int receive_terminal(struct stdio *io, struct err *e)
{
    int r = console_socket_receive(&io->console, &io->master_fd, e);
    console_socket_done(&io->console);
    if (r < 0)
        return ERR_RETURN;
    /* Each direction has an fd of its own: epoll knows an fd once. */
    if (io->output[0].target_fd >= 0)
        io->output[0].source_fd = neg_errno(fcntl(io->master_fd, F_DUPFD_CLOEXEC, 3));
    if (io->input_path)
        io->input_target_fd = neg_errno(fcntl(io->master_fd, F_DUPFD_CLOEXEC, 3));
    return 0;
}

int stdio_connect(struct stdio *io, struct err *e)
{
    struct event_loop *loop = io->reaper->loop;
    int r = 0;

    if (io->terminal && receive_terminal(io, e) < 0)
        return ERR_RETURN;
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(io->output); i++) {
        struct stdio_output *o = &io->output[i];
        if (o->source_fd >= 0 && o->target_fd >= 0 && !copy_is_running(&o->copy))
            r = copy_start(&o->copy, loop, o->source_fd, o->target_fd, on_output_ended);
    }
    return r < 0 ? err_errno(e, r, "failed to start io pipe copy") : 0;
}

int stdio_connect_input(struct stdio *io, struct err *e)
{
    _free_ char *path = TAKE(io->input_path);
    bool from_fifo = io->input_source_fd < 0; /* a file is open already */

    if (!path || io->input_target_fd < 0)
        return 0;
    /* In this order neither open waits: the second finds a reader, us. Without the second the
     * reader waits for the client's writer and ends with it. */
    if (from_fifo)
        io->input_source_fd = neg_errno(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    int r = io->input_source_fd;
    if (r >= 0 && from_fifo && !io->input_closed)
        r = io->input_holder_fd = neg_errno(open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    if (r < 0)
        return err_errno(e, r, "failed to open stdin fifo %.500s", path);
    r = copy_start(&io->input, io->reaper->loop, io->input_source_fd, io->input_target_fd,
                   on_input_ended);
    return r < 0 ? err_errno(e, r, "failed to start io pipe copy") : 0;
}

void stdio_close_input(struct stdio *io)
{
    io->input_closed = true;
    close_fd(&io->input_holder_fd);
}

int stdio_resize(struct stdio *io, uint32_t width, uint32_t height)
{
    return io->master_fd >= 0 ? console_resize(io->master_fd, width, height) : 0;
}

uint64_t stdio_unread(const struct stdio *io)
{
    uint64_t n = 0;

    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++) {
        const struct stdio_output *o = &io->output[i];
        if (copy_is_running(&o->copy))
            n += bytes_in_pipe(o->source_fd) + copy_held(&o->copy) + bytes_in_pipe(o->target_fd);
        n += bytes_in_pipe(o->rest_fd);
    }
    return n;
}

void stdio_forget_rest(struct stdio *io)
{
    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++)
        close_fd(&io->output[i].rest_fd);
}

uint64_t stdio_moved(const struct stdio *io)
{
    return io->output[0].copy.moved + io->output[1].copy.moved;
}

static void on_finish_timer(struct event_timer *timer);

static void wait_for_output(struct stdio *io)
{
    uint64_t moved = stdio_moved(io);
    uint64_t now = clock_monotonic_ms();
    bool is_idle = moved == io->last_moved;

    io->last_moved = moved;
    if (!is_copying_output(io) || is_idle || now >= io->deadline_ms) {
        finish_streams(io);
        return;
    }
    event_timer_arm(io->reaper->loop, &io->timer,
                    MIN_OF(io->deadline_ms - now, (uint64_t)STDIO_DRAIN_IDLE_MS), on_finish_timer);
}

static void on_finish_timer(struct event_timer *timer)
{
    wait_for_output(container_of(timer, struct stdio, timer));
}

void stdio_finish(struct stdio *io, stdio_finished_fn finished)
{
    io->finished = finished;
    io->deadline_ms = clock_monotonic_ms() + STDIO_DRAIN_MAX_MS;
    io->last_moved = UINT64_MAX; /* the first look never finds it idle */
    wait_for_output(io);
}

void stdio_hurry(struct stdio *io)
{
    io->deadline_ms = 0;
    if (io->logger)
        logger_hurry(io->logger);
    if (io->finished && is_copying_output(io))
        event_timer_arm(io->reaper->loop, &io->timer, 0, on_finish_timer);
    else if (io->opened && wants_reader(io))
        event_timer_arm(io->reaper->loop, &io->timer, 0, on_open_timer);
}

size_t stdio_take_stderr(struct stdio *io, char *ret, size_t size)
{
    if (io->terminal || io->output[1].source_fd < 0)
        return 0;
    ssize_t n = read(io->output[1].source_fd, ret, size);
    return n > 0 ? (size_t)n : 0;
}

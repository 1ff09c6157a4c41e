/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/stdio.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

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
        stdio_output_close(&io->output[i]);
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
    stdio_output_keep_rest(o);
    stdio_output_close(o);
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
        stdio_output_close(&io->output[0]);
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

    for (size_t i = 0; i < ARRAY_SIZE(io->output); i++)
        n += stdio_output_unread(&io->output[i]);
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
    else
        stdio_hurry_opening(io);
}

size_t stdio_take_stderr(struct stdio *io, char *ret, size_t size)
{
    if (io->terminal || io->output[1].source_fd < 0)
        return 0;
    ssize_t n = read(io->output[1].source_fd, ret, size);
    return n > 0 ? (size_t)n : 0;
}

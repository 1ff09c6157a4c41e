/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/pump.h"

#include <fcntl.h>
#include <sys/ioctl.h>

/* A blocking pipe that is writable takes this much without blocking, pipe(7). */
#define WRITE_MAX 4096
#define TURNS_MAX 16 /* before other sources of the loop get their turn */

enum step { STEP_AGAIN, STEP_WAIT_IN, STEP_WAIT_OUT, STEP_DONE };

static void finish(struct pump *p)
{
    if (p->done)
        return;
    p->done = true;
    event_fd_remove(&p->in);
    event_fd_remove(&p->out);
    p->on_done(p);
}

static bool has_input(int fd)
{
    int n = 0;

    return ioctl(fd, FIONREAD, &n) == 0 && n > 0;
}

static enum step step_splice(struct pump *p)
{
    ssize_t n = splice(p->in_fd, NULL, p->out_fd, NULL, PUMP_BUFFER_BYTES,
                       SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

    if (n > 0)
        return STEP_AGAIN;
    if (n == 0)
        return STEP_DONE;
    if (errno == EAGAIN)
        return has_input(p->in_fd) && !p->out_always ? STEP_WAIT_OUT : STEP_WAIT_IN;
    if (errno == EINTR)
        return STEP_AGAIN;
    p->splices = false; /* a terminal, a file to be appended to, a broken pipe */
    return STEP_AGAIN;
}

static enum step step_write(struct pump *p)
{
    size_t n = p->out_always ? p->len : MIN_OF(p->len, (size_t)WRITE_MAX);
    ssize_t written = write(p->out_fd, p->buffer + p->at, n);

    if (written > 0) {
        p->at += (size_t)written;
        p->len -= (size_t)written;
        return p->len > 0 && !p->out_always ? STEP_WAIT_OUT : STEP_AGAIN;
    }
    if (errno == EAGAIN)
        return STEP_WAIT_OUT;
    if (errno == EINTR)
        return STEP_AGAIN;
    if (!p->from_container)
        return STEP_DONE;
    p->out_fd = -EBADF; /* nobody reads any more */
    p->len = 0;
    event_fd_remove(&p->out);
    if (p->on_gone)
        p->on_gone(p);
    return STEP_AGAIN;
}

static enum step step_read(struct pump *p)
{
    uint8_t typed[1024];
    bool through_keys = p->keys;
    ssize_t n = through_keys ? read(p->in_fd, typed, sizeof(typed))
                             : read(p->in_fd, p->buffer, PUMP_BUFFER_BYTES);

    if (n < 0 && errno == EINTR)
        return STEP_AGAIN;
    if (n < 0 && errno == EAGAIN)
        return STEP_WAIT_IN;
    if (n <= 0)
        return STEP_DONE;
    p->at = 0;
    p->len = (size_t)n;
    if (through_keys)
        p->detached = detach_keys_feed(p->keys, typed, (size_t)n, p->buffer, &p->len);
    if (p->detached)
        return STEP_DONE;
    if (p->out_fd < 0) {
        p->discarded_bytes += p->len;
        p->len = 0;
    }
    if (p->len == 0)
        return STEP_WAIT_IN;
    return p->out_always ? STEP_AGAIN : STEP_WAIT_OUT;
}

static void wait_for(struct pump *p, bool in)
{
    int r = 0;

    if (in && p->in_always)
        in = false; /* its next turn comes when the other end can take more */
    if (!p->in_always)
        r = event_fd_set(&p->in, in ? EPOLLIN : 0);
    if (r == 0 && !p->out_always && p->out_fd >= 0)
        r = event_fd_set(&p->out, in ? 0 : EPOLLOUT);
    if (r < 0)
        finish(p);
}

static void advance(struct pump *p)
{
    enum step step = STEP_AGAIN;

    for (int turns = 0; turns < TURNS_MAX && step == STEP_AGAIN; turns++) {
        if (p->len > 0)
            step = step_write(p);
        else if (p->splices && p->out_fd >= 0)
            step = step_splice(p);
        else
            step = step_read(p);
        /* Somebody else's fd may block: it is read once an event. */
        if (step == STEP_AGAIN && p->len == 0 && !p->from_container && !p->in_always)
            step = STEP_WAIT_IN;
    }
    if (step == STEP_DONE)
        finish(p);
    else
        wait_for(p, step == STEP_AGAIN ? p->len == 0 : step == STEP_WAIT_IN);
}

static void on_in(struct event_fd *source, uint32_t events)
{
    advance(container_of(source, struct pump, in));
}

static void on_out(struct event_fd *source, uint32_t events)
{
    advance(container_of(source, struct pump, out));
}

static int add_source(struct pump *p, struct event_fd *source, int fd, event_fd_fn fn,
                      uint32_t events, bool *ret_always)
{
    int r = event_fd_add(p->loop, source, fd, events, fn);

    *ret_always = r == -EPERM; /* epoll_ctl(2): a file without poll */
    return *ret_always ? 0 : r;
}

int pump_start(struct pump *p, struct event_loop *loop, int in_fd, int out_fd, bool from_container,
               struct detach_keys *keys, void (*on_done)(struct pump *p))
{
    int r;

    *p = (struct pump){
        .loop = loop,
        .in_fd = in_fd,
        .out_fd = out_fd,
        .from_container = from_container,
        .keys = keys,
        .on_done = on_done,
        .splices = !keys,
    };
    p->buffer = malloc(PUMP_BUFFER_BYTES + 1);
    if (!p->buffer)
        return -ENOMEM;
    r = add_source(p, &p->in, in_fd, on_in, EPOLLIN, &p->in_always);
    if (r == 0)
        r = add_source(p, &p->out, out_fd, on_out, EPOLLOUT, &p->out_always);
    if (r == 0 && !p->out_always && !p->in_always)
        r = event_fd_set(&p->out, 0);
    if (r < 0)
        pump_stop(p);
    return r;
}

void pump_drain(struct pump *p)
{
    for (int turns = 0; turns < 1024 && p->loop && !p->done && has_input(p->in_fd); turns++)
        advance(p);
}

void pump_stop(struct pump *p)
{
    if (!p->loop)
        return;
    event_fd_remove(&p->in);
    event_fd_remove(&p->out);
    free(p->buffer);
    *p = (struct pump){};
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn is: epoll_wait(2), the fds it names, then the timers that are due. The fetched events live
 * on the stack of the turn and are reachable through loop->pending, so that event_fd_remove() can
 * blank those of a source which goes away while they wait for delivery.
 */
#include "base/event.h"

#include <limits.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "base/clock.h"

#define EVENTS_PER_TURN 64

int event_loop_init(struct event_loop *loop)
{
    *loop = (struct event_loop){.epoll_fd = -EBADF, .wake_fd = -EBADF};
    list_init(&loop->timers);
    list_init(&loop->posts);
    int fd = neg_errno(epoll_create1(EPOLL_CLOEXEC));
    if (fd < 0)
        return fd;
    int r = pthread_mutex_init(&loop->post_lock, NULL);
    if (r) {
        close(fd);
        return -r;
    }
    loop->epoll_fd = fd;
    return 0;
}

void event_loop_done(struct event_loop *loop)
{
    if (loop->epoll_fd < 0)
        return;
    event_fd_remove(&loop->wake);
    close_fd(&loop->wake_fd);
    close_fd(&loop->epoll_fd);
    pthread_mutex_destroy(&loop->post_lock);
}

static void run_posts(struct event_fd *source, _unused_ uint32_t events)
{
    struct event_loop *loop = source->loop;
    struct list due;
    uint64_t count;

    /* The counter is cleared before the list is taken: a post that comes between the two makes one
     * turn too many, never one too few. */
    if (read(source->fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return;

    list_init(&due);
    pthread_mutex_lock(&loop->post_lock);
    if (!list_is_empty(&loop->posts)) {
        due = loop->posts;
        due.next->prev = &due;
        due.prev->next = &due;
        list_init(&loop->posts);
    }
    pthread_mutex_unlock(&loop->post_lock);

    for (struct list *l; (l = list_pop_front(&due));) {
        struct event_post *post = container_of(l, struct event_post, link);
        post->fn(post);
    }
}

int event_loop_enable_posts(struct event_loop *loop)
{
    if (loop->wake_fd >= 0)
        return 0;
    _close_ int fd = neg_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (fd < 0)
        return fd;
    int r = event_fd_add(loop, &loop->wake, fd, EPOLLIN, run_posts);
    if (r < 0)
        return r;
    loop->wake_fd = TAKE_FD(fd);
    return 0;
}

void event_loop_post(struct event_loop *loop, struct event_post *post, event_post_fn fn)
{
    post->fn = fn;
    list_init(&post->link);

    pthread_mutex_lock(&loop->post_lock);
    bool was_empty = list_is_empty(&loop->posts);
    list_push_back(&loop->posts, &post->link);
    /* Under the lock, so that the loop cannot end and close the fd in between. The write fails only
     * when the counter is full, and then the loop is awake anyway. */
    if (was_empty) {
        uint64_t one = 1;
        ssize_t n;
        do
            n = write(loop->wake_fd, &one, sizeof(one));
        while (n < 0 && errno == EINTR);
    }
    pthread_mutex_unlock(&loop->post_lock);
}

/* The wait that ends no later than the first timer. */
static int shorten_to_timer(const struct event_loop *loop, int timeout_ms)
{
    if (list_is_empty(&loop->timers))
        return timeout_ms;
    const struct event_timer *first = container_of(loop->timers.next, struct event_timer, link);
    uint64_t now = clock_monotonic_ms();
    uint64_t left = first->at_ms > now ? first->at_ms - now : 0;
    if (timeout_ms >= 0 && left > (uint64_t)timeout_ms)
        return timeout_ms;
    return (int)MIN_OF(left, (uint64_t)INT_MAX);
}

static void run_timers(struct event_loop *loop)
{
    struct list due;

    if (list_is_empty(&loop->timers))
        return;
    /* Due timers are moved aside first: one that arms itself again with 0 ms must not starve the
     * fds. */
    list_init(&due);
    uint64_t now = clock_monotonic_ms();
    while (!list_is_empty(&loop->timers)) {
        struct event_timer *t = container_of(loop->timers.next, struct event_timer, link);
        if (t->at_ms > now)
            break;
        list_remove(&t->link);
        list_push_back(&due, &t->link);
    }
    for (struct list *l; (l = list_pop_front(&due));) {
        struct event_timer *t = container_of(l, struct event_timer, link);
        t->loop = NULL;
        t->fn(t);
    }
}

int event_loop_turn(struct event_loop *loop, int timeout_ms)
{
    struct epoll_event events[EVENTS_PER_TURN];

    if (loop->pending)
        return -EBUSY; /* from inside a callback: its turn would be confused */

    int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, shorten_to_timer(loop, timeout_ms));
    if (n < 0)
        return errno == EINTR ? 0 : -errno;

    loop->pending = events;
    loop->n_pending = n;
    for (int i = 0; i < n; i++) {
        struct event_fd *source = events[i].data.ptr;
        if (!source)
            continue;
        /* The mask may have shrunk since the event was fetched. */
        uint32_t got = events[i].events & (source->events | EPOLLHUP | EPOLLERR);
        if (got && source->in_epoll)
            source->fn(source, got);
    }
    run_timers(loop);
    loop->pending = NULL;
    loop->n_pending = 0;
    return 0;
}

int event_loop_run(struct event_loop *loop)
{
    while (!loop->quit) {
        int r = event_loop_turn(loop, -1);
        if (r < 0)
            return r;
    }
    return loop->exit_status;
}

void event_loop_quit(struct event_loop *loop, int status)
{
    loop->quit = true;
    loop->exit_status = status;
}

int event_fd_add(struct event_loop *loop, struct event_fd *source, int fd, uint32_t events,
                 event_fd_fn fn)
{
    *source = (struct event_fd){.loop = loop, .fd = fd, .fn = fn};
    int r = event_fd_set(source, events);
    if (r < 0)
        source->loop = NULL;
    return r;
}

int event_fd_set(struct event_fd *source, uint32_t events)
{
    if (source->events == events)
        return 0;

    /* With an empty mask epoll would still report hang-ups, again and again: a silent source is
     * taken out of the set. */
    int op = EPOLL_CTL_MOD;
    if (!events)
        op = EPOLL_CTL_DEL;
    else if (!source->in_epoll)
        op = EPOLL_CTL_ADD;

    struct epoll_event ev = {.events = events, .data.ptr = source};
    int r = neg_errno(epoll_ctl(source->loop->epoll_fd, op, source->fd, &ev));
    if (r < 0)
        return r;
    source->events = events;
    source->in_epoll = events != 0;
    return 0;
}

void event_fd_remove(struct event_fd *source)
{
    struct event_loop *loop = source->loop;

    if (!loop)
        return;
    event_fd_set(source, 0);
    for (int i = 0; i < loop->n_pending; i++)
        if (loop->pending[i].data.ptr == source)
            loop->pending[i].data.ptr = NULL;
    source->loop = NULL;
}

void event_timer_arm(struct event_loop *loop, struct event_timer *source, uint64_t after_ms,
                     event_timer_fn fn)
{
    event_timer_disarm(source);

    uint64_t now = clock_monotonic_ms();
    source->at_ms = after_ms > UINT64_MAX - now ? UINT64_MAX : now + after_ms;
    source->fn = fn;
    source->loop = loop;

    /* From the back: most timers are armed for later than those that wait already. */
    struct list *after = loop->timers.prev;
    while (after != &loop->timers &&
           container_of(after, struct event_timer, link)->at_ms > source->at_ms)
        after = after->prev;
    list_push_front(after, &source->link);
}

void event_timer_disarm(struct event_timer *source)
{
    if (!source->loop)
        return;
    list_remove(&source->link);
    source->loop = NULL;
}

int event_signal_fd(const sigset_t *mask)
{
    int r = pthread_sigmask(SIG_BLOCK, mask, NULL);
    if (r)
        return -r;
    return neg_errno(signalfd(-1, mask, SFD_CLOEXEC | SFD_NONBLOCK));
}

int event_signal_read(int fd, struct signalfd_siginfo *ret)
{
    struct signalfd_siginfo info;
    ssize_t n;

    do
        n = read(fd, &info, sizeof(info));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (n != sizeof(info))
        return -EIO;
    *ret = info;
    return 1;
}

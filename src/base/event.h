/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one epoll set, level-triggered. Sources are embedded in their owners and
 * recovered with container_of(); the loop allocates nothing after event_loop_init().
 *
 * One thread runs a loop. Everything here is for that thread alone, except event_loop_post().
 *
 * A callback may remove any source, also its own, and free its owner: the loop never touches a
 * source after calling it, and events already fetched for a removed source are dropped.
 */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include "base/list.h"

struct event_loop;
struct event_fd;
struct event_timer;
struct event_post;

/* events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR as of epoll_ctl(2). */
typedef void (*event_fd_fn)(struct event_fd *source, uint32_t events);
typedef void (*event_timer_fn)(struct event_timer *source);
typedef void (*event_post_fn)(struct event_post *post);

struct event_fd {
    struct event_loop *loop; /* NULL while not added */
    int fd;                  /* borrowed: remove the source before the fd is closed */
    uint32_t events;
    event_fd_fn fn;
    bool in_epoll; /* false while events is 0 */
};

struct event_timer {
    struct event_loop *loop; /* NULL while not armed */
    uint64_t at_ms;          /* clock_monotonic_ms() */
    event_timer_fn fn;
    size_t heap_index;
    struct list link;
};

/* A message to the loop from any thread; owned by the poster until fn runs on the loop. */
struct event_post {
    struct list link;
    event_post_fn fn;
};

struct event_loop {
    int epoll_fd;
    int wake_fd; /* eventfd, -EBADF until the first event_loop_enable_posts() */
    struct event_fd wake;
    struct list timers;          /* sorted by at_ms */
    struct epoll_event *pending; /* events fetched and not yet delivered */
    int n_pending;
    bool quit;
    int exit_status;
    pthread_mutex_t post_lock;
    struct list posts;
};

/* Returns 0 or negative errno. */
int event_loop_init(struct event_loop *loop);
void event_loop_done(struct event_loop *loop);
/* Makes event_loop_post() possible (costs one fd). */
int event_loop_enable_posts(struct event_loop *loop);

/* Runs until event_loop_quit(); returns its status, or a negative errno of epoll_wait(2). */
int event_loop_run(struct event_loop *loop);
/* One turn: waits at most timeout_ms (-1: for ever), delivers what is there. 0 or negative errno;
 * -EBUSY from inside a callback. */
int event_loop_turn(struct event_loop *loop, int timeout_ms);
void event_loop_quit(struct event_loop *loop, int status);

/* The caller has set fd and fn. events may be 0 (registered, silent). Returns 0 or negative errno.
 */
int event_fd_add(struct event_loop *loop, struct event_fd *source, int fd, uint32_t events,
                 event_fd_fn fn);
int event_fd_set(struct event_fd *source,
                 uint32_t events);             /* changes the mask; cheap if the same */
void event_fd_remove(struct event_fd *source); /* no-op if not added */

/* (Re)arms for after_ms from now; fires once. Disarmed before fn runs. */
void event_timer_arm(struct event_loop *loop, struct event_timer *source, uint64_t after_ms,
                     event_timer_fn fn);
void event_timer_disarm(struct event_timer *source); /* no-op if not armed */

/* [any thread] Runs post->fn on the loop, in order of posting. */
void event_loop_post(struct event_loop *loop, struct event_post *post, event_post_fn fn);

/*
 * Signals by signalfd(2): blocks the mask in the calling thread (do it before other threads start)
 * and returns an fd to be added as an event_fd; event_signal_read() takes one siginfo from it:
 * 1, 0 when there is none, or negative errno.
 */
struct signalfd_siginfo;
int event_signal_fd(const sigset_t *mask);
int event_signal_read(int fd, struct signalfd_siginfo *ret);

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "base/clock.h"
#include "base/event.h"

struct counter {
    struct event_loop loop;
    struct event_fd fd[3];
    struct event_timer timer[3];
    struct event_post post[3];
    int fd_calls, order[8], n_order;
    uint32_t last_events;
};

static struct counter *c;

static int setup(void **state)
{
    *state = c = calloc(1, sizeof(*c));
    return c ? event_loop_init(&c->loop) : -1;
}

static int teardown(void **state)
{
    event_loop_done(&c->loop);
    free(*state);
    return 0;
}

static void count_fd(struct event_fd *source, uint32_t events)
{
    c->fd_calls++;
    c->last_events = events;
    eventfd_t value;
    (void)!eventfd_read(source->fd, &value);
}

static void remove_all(_unused_ struct event_fd *source, _unused_ uint32_t events)
{
    c->fd_calls++;
    for (int i = 0; i < 3; i++) {
        event_fd_remove(&c->fd[i]);
        memset(&c->fd[i], 0xee, sizeof(c->fd[i])); /* as if freed */
        c->fd[i].loop = NULL;
    }
}

static void silence_others(struct event_fd *source, _unused_ uint32_t events)
{
    c->fd_calls++;
    for (int i = 0; i < 3; i++)
        if (&c->fd[i] != source)
            assert_int_equal(event_fd_set(&c->fd[i], 0), 0);
}

static void three_ready(event_fd_fn fn, int fds[3])
{
    for (int i = 0; i < 3; i++) {
        fds[i] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_int_equal(event_fd_add(&c->loop, &c->fd[i], fds[i], EPOLLIN, fn), 0);
    }
}

static void close_three(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        event_fd_remove(&c->fd[i]);
        close(fds[i]);
    }
}

static void delivers_fds(_unused_ void **state)
{
    int fds[3];

    three_ready(count_fd, fds);
    assert_int_equal(event_loop_turn(&c->loop, 1000), 0);
    assert_int_equal(c->fd_calls, 3);
    assert_int_equal(c->last_events, EPOLLIN);
    assert_int_equal(event_loop_turn(&c->loop, 0), 0);
    assert_int_equal(c->fd_calls, 3);
    close_three(fds);
}

static void removed_source_is_not_called(_unused_ void **state)
{
    int fds[3];

    three_ready(remove_all, fds);
    assert_int_equal(event_loop_turn(&c->loop, 1000), 0);
    assert_int_equal(c->fd_calls, 1);
    assert_int_equal(event_loop_turn(&c->loop, 0), 0);
    assert_int_equal(c->fd_calls, 1);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

static void masked_source_is_not_called(_unused_ void **state)
{
    int fds[3];

    three_ready(silence_others, fds);
    assert_int_equal(event_loop_turn(&c->loop, 1000), 0);
    assert_int_equal(c->fd_calls, 1);
    close_three(fds);
}

static void silent_source_ignores_hang_up(_unused_ void **state)
{
    int p[2];

    assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(event_fd_add(&c->loop, &c->fd[0], p[0], 0, count_fd), 0);
    close(p[1]);
    assert_int_equal(event_loop_turn(&c->loop, 0), 0);
    assert_int_equal(c->fd_calls, 0);
    assert_int_equal(event_fd_set(&c->fd[0], EPOLLIN), 0);
    assert_int_equal(event_loop_turn(&c->loop, 1000), 0);
    assert_int_equal(c->fd_calls, 1);
    assert_true(c->last_events & EPOLLHUP);
    event_fd_remove(&c->fd[0]);
    event_fd_remove(&c->fd[0]);
    close(p[0]);
}

static void regular_file_is_refused(_unused_ void **state)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    assert_int_equal(event_fd_add(&c->loop, &c->fd[0], fd, EPOLLIN, count_fd), -EPERM);
    event_fd_remove(&c->fd[0]);
    close(fd);
}

static void note_timer(struct event_timer *source)
{
    c->order[c->n_order++] = (int)(source - c->timer);
    if (c->n_order == 3)
        event_loop_quit(&c->loop, 7);
}

static void timers_fire_in_order(_unused_ void **state)
{
    uint64_t begin = clock_monotonic_ms();

    event_timer_arm(&c->loop, &c->timer[2], 30, note_timer);
    event_timer_arm(&c->loop, &c->timer[0], 500000, note_timer);
    event_timer_arm(&c->loop, &c->timer[1], 20, note_timer);
    event_timer_arm(&c->loop, &c->timer[0], 10, note_timer); /* again: the new time counts */
    assert_int_equal(event_loop_run(&c->loop), 7);
    assert_true(clock_monotonic_ms() - begin >= 30);
    for (int i = 0; i < 3; i++)
        assert_int_equal(c->order[i], i);
    assert_null(c->timer[0].loop);
}

static void disarm_other(_unused_ struct event_timer *source)
{
    c->n_order++;
    event_timer_disarm(&c->timer[0]);
    event_timer_disarm(&c->timer[1]);
}

static void due_timer_can_be_disarmed(_unused_ void **state)
{
    event_timer_arm(&c->loop, &c->timer[0], 0, disarm_other);
    event_timer_arm(&c->loop, &c->timer[1], 0, disarm_other);
    assert_int_equal(event_loop_turn(&c->loop, 1000), 0);
    assert_int_equal(event_loop_turn(&c->loop, 0), 0);
    assert_int_equal(c->n_order, 1);
}

static void again_at_once(struct event_timer *source)
{
    if (++c->n_order == 5)
        event_loop_quit(&c->loop, 0);
    else
        event_timer_arm(&c->loop, source, 0, again_at_once);
}

static void eager_timer_does_not_starve_fds(_unused_ void **state)
{
    int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_int_equal(event_fd_add(&c->loop, &c->fd[0], fd, EPOLLIN, count_fd), 0);
    event_timer_arm(&c->loop, &c->timer[0], 0, again_at_once);
    assert_int_equal(event_loop_turn(&c->loop, 0), 0);
    assert_int_equal(c->n_order, 1);
    assert_int_equal(c->fd_calls, 1);
    assert_int_equal(event_loop_run(&c->loop), 0);
    event_fd_remove(&c->fd[0]);
    close(fd);
}

static void note_post(struct event_post *post)
{
    c->order[c->n_order++] = (int)(post - c->post);
    if (c->n_order == 3)
        event_loop_quit(&c->loop, 0);
}

static void *post_three(_unused_ void *arg)
{
    for (int i = 0; i < 3; i++)
        event_loop_post(&c->loop, &c->post[i], note_post);
    return NULL;
}

static void posts_arrive_in_order(_unused_ void **state)
{
    pthread_t thread;

    assert_int_equal(event_loop_enable_posts(&c->loop), 0);
    assert_int_equal(pthread_create(&thread, NULL, post_three, NULL), 0);
    assert_int_equal(event_loop_run(&c->loop), 0);
    pthread_join(thread, NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(c->order[i], i);
}

static void nested_turn_is_refused_in(_unused_ struct event_timer *source)
{
    c->order[0] = event_loop_turn(&c->loop, 0);
}

static void nested_turn_is_refused(_unused_ void **state)
{
    /* Only while fds are delivered or timers run. */
    event_timer_arm(&c->loop, &c->timer[0], 0, nested_turn_is_refused_in);
    assert_int_equal(event_loop_turn(&c->loop, 1000), 0);
    assert_int_equal(c->order[0], -EBUSY);
}

static void signals_are_read(_unused_ void **state)
{
    struct signalfd_siginfo info;
    sigset_t mask, before;

    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    int fd = event_signal_fd(&mask);
    assert_true(fd >= 0);
    assert_int_equal(event_signal_read(fd, &info), 0);
    raise(SIGUSR1);
    assert_int_equal(event_signal_read(fd, &info), 1);
    assert_int_equal(info.ssi_signo, SIGUSR1);
    assert_int_equal(event_signal_read(fd, &info), 0);
    close(fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(delivers_fds),
        T(removed_source_is_not_called),
        T(masked_source_is_not_called),
        T(silent_source_ignores_hang_up),
        T(regular_file_is_refused),
        T(timers_fire_in_order),
        T(due_timer_can_be_disarmed),
        T(eager_timer_does_not_starve_fds),
        T(posts_arrive_in_order),
        T(nested_turn_is_refused),
        T(signals_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

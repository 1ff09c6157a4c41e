/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/output_hold.h"

#include "base/clock.h"

/* Nothing tells that a pipe has been emptied, so it is looked at, ever more rarely. */
#define PAUSE_MIN_MS 1
#define PAUSE_MAX_MS 20

static void on_pause(struct event_timer *timer)
{
    struct output_hold *h = container_of(timer, struct output_hold, timer);

    h->again(h);
}

static bool is_worth_waiting(struct output_hold *h)
{
    uint64_t now = clock_monotonic_ms();
    uint64_t left = stdio_unread(h->io);
    uint64_t moved = stdio_moved(h->io);

    if (left == 0)
        return false;
    if (h->began_ms == 0)
        h->began_ms = now;
    if (h->moved_ms == 0 || left != h->left || moved != h->moved)
        h->moved_ms = now;
    h->left = left;
    h->moved = moved;
    return now - h->moved_ms < OUTPUT_HOLD_IDLE_MS && now - h->began_ms < OUTPUT_HOLD_MAX_MS;
}

bool output_hold(struct output_hold *h, struct stdio *io, void (*again)(struct output_hold *h))
{
    if (h->is_over)
        return false;
    h->io = io;
    h->again = again;
    if (!is_worth_waiting(h)) {
        h->is_over = true;
        event_timer_disarm(&h->timer);
        stdio_forget_rest(io);
        return false;
    }
    h->pause_ms = MIN_OF(MAX_OF(h->pause_ms * 2, (uint64_t)PAUSE_MIN_MS), (uint64_t)PAUSE_MAX_MS);
    event_timer_arm(io->reaper->loop, &h->timer, h->pause_ms, on_pause);
    return true;
}

void output_hold_done(struct output_hold *h)
{
    event_timer_disarm(&h->timer);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding back the end of a process until what it printed has been read.
 *
 * Clients stop reading when they hear of the end: ctr before 1.7.3 closes its fifos at once and
 * loses what is still in them. So the end is told when nothing is left in the pipes, which mostly
 * is at once; a reader that does not go on reading, or never ends, is not waited for.
 */
#pragma once

#include "shim/stdio.h"

/* Without a byte moving, and in all. */
#define OUTPUT_HOLD_IDLE_MS 250
#define OUTPUT_HOLD_MAX_MS 2000

struct output_hold {
    struct event_timer timer;
    void (*again)(struct output_hold *h);
    struct stdio *io;
    uint64_t began_ms, moved_ms; /* 0: not yet */
    uint64_t pause_ms;
    uint64_t left, moved;
    bool is_over;
};

/* True: not yet, and again() comes when it is worth asking once more. False from then on. */
bool output_hold(struct output_hold *h, struct stdio *io, void (*again)(struct output_hold *h));
void output_hold_done(struct output_hold *h);

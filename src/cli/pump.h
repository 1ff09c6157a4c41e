/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves bytes from one fd to another on the event loop: by splice(2) where both ends allow it, else
 * through a buffer. At least one of the two must be a pipe or fifo opened with O_NONBLOCK; the
 * other may be a terminal, a pipe, a file or a socket of somebody else, whose flags are left alone:
 * it is only read or written when epoll_wait(2) says so (files always are).
 *
 * A pump `from_container` has one of our fifos as in_fd, and when the receiving end is gone (EPIPE)
 * it goes on reading, so that the container never blocks; another one ends.
 */
#pragma once

#include "base/event.h"
#include "cli/detach_keys.h"

#define PUMP_BUFFER_BYTES 65536

struct pump {
    struct event_loop *loop; /* NULL while not started */
    int in_fd, out_fd;       /* borrowed */
    struct event_fd in, out;
    bool in_always, out_always; /* files: no events, always ready */
    bool splices;
    bool from_container;
    bool done;                /* end of input, or nothing more can be written */
    struct detach_keys *keys; /* NULL: bytes pass as they are */
    bool detached;            /* the sequence was typed */
    uint8_t *buffer;          /* PUMP_BUFFER_BYTES + 1 */
    size_t at, len;           /* bytes of it still to be written */
    uint64_t discarded_bytes; /* read after the receiver was gone */
    void (*on_gone)(
        struct pump *p); /* the receiver is gone; may be NULL; set it after pump_start() */
    void (*on_done)(struct pump *p);
};

/* 0 or negative errno. on_done is called once, from the loop or from here. keys are borrowed. */
int pump_start(struct pump *p, struct event_loop *loop, int in_fd, int out_fd, bool from_container,
               struct detach_keys *keys, void (*on_done)(struct pump *p));
/* Moves what can be read right now, without waiting for more. */
void pump_drain(struct pump *p);
void pump_stop(struct pump *p); /* no-op if not started */

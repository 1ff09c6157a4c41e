/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends of tasks that a daemon has found at its start, kept for subscribers that come later.
 *
 * A client whose connection went with the previous daemon subscribes again only after a pause:
 * containerd's client library, and dockerd with it, waits up to 3.6 s between two attempts. By then
 * the shims have told what happened meanwhile and the daemon has ended what had lost its shim, and
 * a client that knows tasks by their events alone, as dockerd does, would take them for running for
 * ever. So everybody who subscribes while the daemon is young gets those ends, in their order.
 *
 * Not thread-safe: the exchange's lock protects it.
 */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "types.pb-c.h"

#define LATE_ENDS_MS 15000
#define LATE_ENDS_MAX 8192 /* of more the oldest is dropped */

struct late_end {
    struct list link;
    char *key; /* "ns/id" of the task */
    Pb__Types__Envelope *envelope;
};

struct late_ends {
    struct map awaited; /* "ns/id" */
    struct list kept;
    size_t n_kept;
    uint64_t until_ms; /* 0: nothing was awaited yet */
};

void late_ends_init(struct late_ends *l);
void late_ends_done(struct late_ends *l);
/* The ends of this task and of its execs are kept. The first call begins the LATE_ENDS_MS. 0 or
 * -ENOMEM. */
int late_ends_await(struct late_ends *l, const char *ns, const char *id);
/* To be shown every event. Keeps exits and kills for want of memory of awaited tasks; with a task
 * created under the same name those of the older one are forgotten. */
void late_ends_note(struct late_ends *l, const Pb__Types__Envelope *envelope);
/* What is kept, of struct late_end, oldest first; nothing once the time is over. */
struct list *late_ends_kept(struct late_ends *l);

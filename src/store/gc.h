/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Garbage collection: mark from the roots, sweep what was not reached.
 *
 * Roots: images, containers, unexpired leases with what they hold, content and snapshots labelled
 * containerd.io/gc.root, unexpired ingests. Edges: image -> target, container -> snapshot, snapshot
 * -> parent, and the labels containerd.io/gc.ref.*. Mark and the removal of records are one
 * transaction; files and directories go afterwards, outside any lock, by comparing disk with
 * records (so a crash in between is repaired by the next run).
 *
 * Scheduling is the caller's: gc_run() is a blocking call for a pool thread. The scheduler
 * (gc_schedule*) follows containerd's thresholds with a timer on the event loop.
 */
#pragma once

#include "base/event.h"
#include "base/workq.h"
#include "store/db.h"

struct content_store;
struct snapshotters;

struct gc_stats {
    size_t content, ingests, snapshots, leases; /* records removed */
    uint64_t pause_us;                          /* time the database was held */
};

/* One full run. Runs are serialized; a caller that waited through a whole other run that began
 * after its call gets that run's result. */
struct gc;
int gc_run(struct gc *gc, struct gc_stats *ret, struct err *e);

struct gc_options {
    double pause_threshold;     /* 0.02 */
    int64_t deletion_threshold; /* 0 */
    int64_t mutation_threshold; /* 100 */
    uint64_t schedule_delay_ms; /* 0 */
    uint64_t startup_delay_ms;  /* 100 */
};

/* Everything is borrowed for the life of the gc. loop and pool NULL: no schedule, gc_run() only;
 * content and snapshotters NULL: records only. */
int gc_new(struct event_loop *loop, struct workq *pool, struct db *db,
           struct content_store *content, struct snapshotters *snapshotters,
           const struct gc_options *options, struct gc **ret, struct err *e);
/* [loop thread] No run is scheduled any more; before the pool is freed while the loop still turns.
 */
void gc_stop(struct gc *gc);
/* On the loop's thread, with the pool freed before. Takes NULL. Returns NULL. */
struct gc *gc_free(struct gc *gc);
const struct gc_options *gc_get_options(const struct gc *gc);
/* [any thread] Something was deleted: a run becomes due. */
void gc_notify_deletion(struct gc *gc);
/* [any thread] Something will become garbage at this time (a lease expires): a run follows soon
 * after it, also when nothing else happens. Expiries that are already stored are found by every
 * run. */
void gc_notify_expiry(struct gc *gc, struct timespec at);
/* [any thread] Something was changed: counts towards mutation_threshold. */
void gc_notify_mutation(struct gc *gc);

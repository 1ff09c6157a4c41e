/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An elastic pool of threads for straight-line jobs that may block on disk, processes or peers.
 * Threads are started on demand up to a cap, have small stacks, and leave after being idle for a
 * while. Jobs wait in order when all threads are busy. Thread-safe.
 */
#pragma once

#include "base/attr.h"
#include "base/list.h"

struct workq;
struct workq_job;
typedef void (*workq_fn)(struct workq_job *job);
typedef void (*workq_idle_fn)(void *userdata);

/* Embedded in its owner; the queue does not touch it once fn was called. */
struct workq_job {
    struct list link;
    workq_fn fn;
};

/* The thread sanitizer keeps most of a megabyte of its own on each. */
#define WORKQ_STACK_BYTES ((HAS_TSAN ? 4096 : 256) * 1024)
#define WORKQ_IDLE_MS 5000

/* Returns 0 or negative errno. */
int workq_new(unsigned max_threads, struct workq **ret);
/* fn is called on the last thread before that leaves, which is WORKQ_IDLE_MS after the last job: the
 * time to give back what only work needs. Jobs may come and run meanwhile. To be set before the
 * first job, once. */
void workq_on_idle(struct workq *q, workq_idle_fn fn, void *userdata);
/* Waits for all queued and running jobs and ends the threads; from then on jobs are refused. Others
 * may go on submitting meanwhile, so a loop that the jobs need can turn until they are done. */
void workq_end(struct workq *q);
/* Ends it unless it has been. Nobody may use it any more. Takes NULL. Returns NULL. */
struct workq *workq_free(struct workq *q);
/* A thread that cannot be started is not an error while another runs. 0 or negative errno (the job
 * was then not taken): -ESHUTDOWN once workq_end() was called. */
int workq_submit(struct workq *q, struct workq_job *job, workq_fn fn);

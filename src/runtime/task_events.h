/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The events of tasks of runtime v1. Their shims tell of exits alone, through `wherryd publish` and
 * so on a way of their own; everything else is published here, when a call has succeeded and before
 * its caller hears of it.
 *
 * Two ways need a meeting point: an exit that comes while a Start is under way waits until that
 * start was published, and one that comes after the daemon had to report it in the shim's place is
 * dropped.
 */
#pragma once

#include "runtime/shim.h"
#include "task.v2.pb-c.h"

struct task;
struct tasks;
struct task_exit;

#define TASK_EVENTS_HELD_MAX 256 /* of one task; more are let through */
#define TASK_EVENTS_LATE 64      /* exits reported by us that a shim's publisher may still bring */

/* The latest of those, by "ns/container/process/pid". Under the registry's lock. */
struct late_exits {
    char *keys[TASK_EVENTS_LATE];
    size_t next;
};
void late_exits_done(struct late_exits *l);

/* An exchange_gate_fn; userdata is the registry. */
bool task_events_gate(void *tasks, const Pb__Types__Envelope *envelope);

/* [loop] shim_call() with what it makes happen published. The request must stay valid until the
 * answer. */
void task_events_call(struct task *task, struct shim *shim, const char *method,
                      const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                      uint64_t timeout_ms, shim_reply_fn fn, void *userdata);
/* [any thread] After Create. */
void task_events_created(struct task *task, const Pb__Task__CreateTaskRequest *request,
                         uint32_t pid);
/* [any thread] True when nobody has reported the exit of init yet: it is then the caller's to
 * report. */
bool task_events_claim_exit(struct task *task, uint32_t pid);

/* SPDX-License-Identifier: Apache-2.0 */
/* The serving process: what all its containers share. */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/map.h"
#include "shim/reaper.h"

/* The outcome of something that was begun earlier; e is NULL on success. Comes once, from the loop
 * or before the beginning function has returned. */
typedef void (*done_fn)(void *userdata, const struct err *e);

struct sandbox;

struct shim {
    struct event_loop *loop;
    struct reaper *reaper;
    const char *namespace_;
    char *const *environment; /* of the OCI runtime, NULL: our own */
    /* Where runtime v1's command line names the root of the OCI runtime, else NULL. */
    const char *runtime_root;
    const char *criu;
    bool systemd_cgroup;
    bool debug;
    bool v1;                 /* events but exits are the daemon's to publish */
    struct map containers;   /* by id */
    struct list alive;       /* those, and others that an operation still holds */
    struct sandbox *sandbox; /* NULL: none (shim/sandbox.h) */
    bool is_leaving;         /* its sandbox was shut down: it ends with its last container */
    /* Tells the daemon an event of type containerd.events.*; topic: of shim/topics.h. */
    void (*publish)(struct shim *s, const char *topic, const ProtobufCMessage *event);
    /* A container, or the sandbox, has come or gone. */
    void (*changed)(struct shim *s);
    /* The last operation on a container has ended, or a container was freed. NULL: nobody asks. */
    void (*idle)(struct shim *s);
};

/* Nobody would miss it. */
static inline bool shim_is_empty(const struct shim *s)
{
    return s->containers.n == 0 && !s->sandbox;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The serving process: what all its containers share. */
#pragma once

#include "base/map.h"
#include "shim/publisher.h"
#include "shim/reaper.h"

/* The outcome of something that was begun earlier; e is NULL on success. Comes once, from the loop
 * or before the beginning function has returned. */
typedef void (*done_fn)(void *userdata, const struct err *e);

struct sandbox;

struct shim {
    struct event_loop loop;
    struct reaper reaper;
    struct publisher *publisher;
    const char *namespace_;
    /* Where runtime v1's command line names the root of the OCI runtime, else NULL. */
    const char *runtime_root;
    const char *criu;
    bool systemd_cgroup;
    bool debug;
    bool v1;                 /* events but exits are the daemon's to publish */
    struct map containers;   /* by id */
    struct sandbox *sandbox; /* NULL: none (shim/sandbox.h) */
    bool is_leaving;         /* its sandbox was shut down: it ends with its last container */
    /* A container, or the sandbox, has come or gone. */
    void (*changed)(struct shim *s);
};

/* Nobody would miss it. */
static inline bool shim_is_empty(const struct shim *s)
{
    return s->containers.n == 0 && !s->sandbox;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers of runtime v1 without shims (no_shim = true): makes the shim's service inside the
 * daemon (shim/local.h) known to the runtime layer, which knows no shim from inside, and brings its
 * events to the exchange.
 */
#pragma once

#include "runtime/exchange.h"
#include "runtime/linux_launch.h"
#include "shim/local.h"

struct no_shim {
    struct local_shims *shims; /* NULL: off */
    struct exchange *exchange; /* borrowed; set before the first container */
    struct linux_local door;   /* for struct linux_options */
};

/* Before other threads and children. */
int no_shim_init(struct no_shim *n, struct err *e);
/* After the pool has ended, before the exchange goes. */
void no_shim_done(struct no_shim *n);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: what is made while one is in force is safe from the daemon's garbage collection until the
 * lease is deleted or expires. A client that is killed leaves nothing behind for longer than that.
 */
#pragma once

#include "cli/rpc.h"

struct lease {
    char id[40]; /* "": none */
    struct rpc rpc;
};
#define LEASE_INIT \
    {              \
    }

/* Asks for a lease that lives for at most `seconds`. The answer is waited for by lease_apply(), so
 * that other calls can be under way together with it. */
int lease_begin(struct cli *cli, struct lease *l, int64_t seconds, struct err *e);
/* From here on calls carry the lease. */
int lease_apply(struct cli *cli, struct lease *l, struct err *e);
/* Later calls do not carry it any more. */
void lease_suspend(struct cli *cli);
/* Starts the deletion; the answer is not waited for until lease_end(). No-op without a lease. */
void lease_delete(struct cli *cli, struct lease *l);
/* Deletes unless that was done, and waits. Failures are no errors: it expires. */
void lease_end(struct cli *cli, struct lease *l);

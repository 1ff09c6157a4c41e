/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one client process holds of the server: connections, calls, bytes. Clients are told apart by
 * the pid of SO_PEERCRED, unix(7); those of another pid namespace share pid 0.
 *
 * Accounts are found and made on the loop; charging and unref work from any thread, since a call
 * may outlive its connection.
 */
#pragma once

#include <stdatomic.h>

#include "base/list.h"

#define GRPC_CLIENT_MAX_BYTES (128u << 20)
#define GRPC_CLIENT_MAX_CALLS 20000
#define GRPC_CLIENT_MAX_CONNECTIONS 2048

struct grpc_account {
    struct list link; /* loop only; in no list once the last connection is gone */
    pid_t pid;
    unsigned connections; /* loop only */
    atomic_uint refs;
    atomic_size_t bytes;
    atomic_uint calls;
};

/* The account of pid with one more connection and a reference. -EUSERS over the cap, -ENOMEM. */
int grpc_account_connect(struct list *accounts, pid_t pid, struct grpc_account **ret);
/* The connection is gone, and its reference with it. */
void grpc_account_disconnect(struct grpc_account *a);

/* One more call with a reference; false over the cap. */
bool grpc_account_open_call(struct grpc_account *a);
void grpc_account_close_call(struct grpc_account *a);

/* False over the cap, and nothing is charged then. */
bool grpc_account_charge(struct grpc_account *a, size_t bytes);
void grpc_account_refund(struct grpc_account *a, size_t bytes);

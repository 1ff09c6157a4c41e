/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds shims by what /proc says of them, when neither a socket nor a connection leads to them: the
 * socket was removed, or replaced by somebody else's, or the bundle was removed under its shim.
 *
 * What counts as a shim of the daemon at `grpc_address`: a program named containerd-shim* of our
 * own user, in our pid and mount namespaces, with this value of -address, and no action (`start`,
 * `delete`) behind its flags. Any process may have any command line; so may a daemon in a container
 * have our address, whose shims are no affair of ours.
 *
 * Both read all of /proc: for rare cases.
 */
#pragma once

#include "base/proc.h"

/* The one that serves as shim of task `id`. 0, -ESRCH when there is none, or another negative
 * errno. Not for runtime v1, where the command line does not tell. */
int shim_find(const char *grpc_address, const char *ns, const char *id, struct proc *ret);

/* One whose bundle is gone. */
struct lost_shim {
    struct proc proc;    /* the receiver takes it */
    const char *runtime; /* BUNDLE_V2 or BUNDLE_LINUX */
    const char *ns, *id; /* of the bundle; borrowed for the call */
};
/*
 * Calls fn for every shim that ran in a bundle below `state` which is no more: the directory was
 * removed, or what it lay on was unmounted or covered. 0 or negative errno.
 */
int shim_find_lost(const char *grpc_address, const char *state,
                   void (*fn)(void *userdata, struct lost_shim *shim), void *userdata);

/* The path at which a process listens, for a socket of this network namespace. NULL: none that can
 * be found. The caller frees. */
char *shim_find_listener(pid_t pid);

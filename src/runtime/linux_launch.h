/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting the shim of a task of runtime v1: one process, with its listening socket as fd 3, its
 * flags on the command line and the fifos of its work directory as standard output and error.
 * Blocks: for pool threads.
 */
#pragma once

#include "runtime/linux_bundle.h"
#include "runtime/shim_binary.h"
#include "runtime/shim_launch.h"

/* What makes a shim's service inside this process; borrowed. */
struct linux_local {
    /* [not the loop] One for a task; ret is the caller's. */
    int (*begin)(void *userdata, const char *ns, const struct linux_runtime *runtime, bool debug,
                 struct shim_local *ret, struct err *e);
    void *userdata;
};

/* What the configuration says of io.containerd.runtime.v1.linux; borrowed. */
struct linux_options {
    bool is_disabled;
    const char *shim;         /* name (beside the daemon, else on PATH) or absolute path */
    const char *runtime;      /* OCI runtime when the container's options name none; "": runc */
    const char *runtime_root; /* its root; "": /run/containerd/runc */
    bool shim_debug;
    const struct linux_local *no_shim; /* NULL: each task has a shim */
};

/* The program beside the daemon is ours. NOT_FOUND. */
int linux_find_shim(const struct linux_options *options, const char *daemon_dir,
                    struct shim_binary *ret, struct err *e);

/* shim_cgroup: NULL or a cgroup path to put the shim into. The endpoint's version is 1. What the
 * daemon and others look for (shim.pid, address) is in the bundle afterwards. On failure no process
 * is left. */
int linux_launch(const struct shim_host *host, const char *binary, struct bundle *b,
                 const struct linux_runtime *runtime, const char *shim_cgroup, bool debug,
                 struct shim_endpoint *ret, struct err *e);

/* The same without a process: nothing is left in the bundle, as nobody could connect to it again. A
 * shim cgroup does not concern it. */
int linux_launch_local(const struct linux_options *options, struct bundle *b,
                       const struct linux_runtime *runtime, struct shim_endpoint *ret,
                       struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a shim, and its `delete` action. Everything here blocks: for pool threads.
 *
 * Our own shim is started directly: one spawn, with its socket already listening, so that it can be
 * connected to before it has run a single instruction. Everybody else's goes through the `start`
 * action of its binary (runtime/shim_start.h).
 */
#pragma once

#include "base/buf.h"
#include "runtime/bundle.h"
#include "runtime/shim.h"

/* What does not change from shim to shim; borrowed. */
struct shim_host {
    const char *grpc_address;
    const char *ttrpc_address;
    const char *daemon_binary; /* for the publish command of old shims */
    const char *socket_dir;    /* /run/containerd/s */
    bool debug;
    struct rlimit open_files;    /* RLIMIT_NOFILE of shims, and so of containers that name none */
    uint64_t load_timeout_ms;    /* io.containerd.timeout.shim.load */
    uint64_t cleanup_timeout_ms; /* io.containerd.timeout.shim.cleanup */
};

/* "unix://<socket_dir>/<sha256 of grpc address/ns/group>"; NULL: out of memory. */
char *shim_socket_address(const struct shim_host *host, const char *ns, const char *group);

/* The daemon's environment with what a shim is told by it; NULL: out of memory. strv_free(). */
char **shim_environment(const struct shim_host *host, const struct bundle *b);
/* One more than the daemon's own. A failure is logged. */
void shim_raise_oom_score(pid_t pid);
/* On v2 one path below /sys/fs/cgroup, on v1 the same path below every hierarchy. */
int shim_enter_cgroup(const char *cgroup, pid_t pid, struct err *e);

/* Starts our own shim for a bundle. ALREADY_EXISTS when a shim of that group listens already.
 * shim_cgroup: NULL or a cgroup path to put it into. */
int shim_launch_own(const struct shim_host *host, const char *binary, const struct bundle *b,
                    const char *group, const char *shim_cgroup, struct shim_endpoint *ret,
                    struct err *e);
/* Runs `<binary> <action>` in the bundle. Output is what it wrote. Any other exit status than 0 is
 * an error with that output, at most some lines of it, and is in *ret_status. */
int shim_run_action(const struct shim_host *host, const char *binary, const struct bundle *b,
                    const char *action, const void *input, size_t input_len, uint64_t timeout_ms,
                    struct buf *output, int *ret_status, struct err *e);
#define SHIM_OUTPUT_MAX 65536

/* What is known of an ended task. */
struct task_exit {
    uint32_t pid;
    uint32_t status;
    struct timespec at;
};
/* Runs `<binary> delete`. Idempotent. */
int shim_run_delete(const struct shim_host *host, const char *binary, const struct bundle *b,
                    struct task_exit *ret, struct err *e);

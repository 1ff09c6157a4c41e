/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bundle of a task of runtime v1 (io.containerd.runtime.v1.linux): what bundle_begin() makes,
 * and
 *
 *     <state>/io.containerd.runtime.v1.linux/NS/ID/
 *         runtime.json       0600, struct linux_runtime: the intent record
 *         address            "unix:///run/containerd/s/<hex>"
 *         shim.pid           decimal
 *         init.pid           the OCI runtime's
 *         exit.told          empty: the end of the container has been published
 *     <root>/io.containerd.runtime.v1.linux/NS/ID/
 *         shim.stdout.log    fifo 0700: the shim's standard output
 *         shim.stderr.log    fifo 0700: its standard error
 *
 * All calls block on disk.
 */
#pragma once

#include "runtime/bundle.h"

#define LINUX_RUNTIME_NAME "io.containerd.runtime.v1.linux"

/* How the container of one task is run; kept so that it can be ended when its shim is dead. */
struct linux_runtime {
    char *runtime;      /* OCI runtime: name or absolute path */
    char *runtime_root; /* the namespace is appended */
    char *criu;         /* path, or "" */
    bool systemd_cgroup;
};
void linux_runtime_done(struct linux_runtime *r);

/* ALREADY_EXISTS as with bundle_create(). On failure nothing is left. */
int linux_bundle_create(const char *root, const char *state, const char *ns, const char *id,
                        const void *spec, size_t spec_len, const struct linux_runtime *runtime,
                        struct bundle *ret, struct err *e);
/* The defaults where there is no record, or one that cannot be read. -ENOMEM. */
int linux_bundle_read_runtime(struct bundle *b, struct linux_runtime *ret);

enum linux_log { LINUX_LOG_STDOUT, LINUX_LOG_STDERR, LINUX_LOGS };
/* The fifo, read-write, so that neither side ever sees the other's end: blocking for the shim, not
 * so for us. 0 or negative errno. */
int linux_bundle_open_log(struct bundle *b, enum linux_log which, bool nonblocking, int *ret_fd);

/* Who tells of an end is not one: the shim's publisher, or the daemon in its place. The next daemon
 * must know whether either has. Best effort. */
void linux_bundle_note_exit_told(struct bundle *b);
bool linux_bundle_is_exit_told(struct bundle *b);

int linux_bundle_write_shim(struct bundle *b, const char *address, pid_t pid, struct err *e);
/* NULL when there is no address or it is too long. The caller frees. */
char *linux_bundle_read_address(struct bundle *b);

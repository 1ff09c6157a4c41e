/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bundle: the directory of one task, under state, that a shim runs in.
 *
 *     <state>/io.containerd.runtime.v2.task/NS/ID/
 *                            0700 (0710 and the mapped group with a user namespace)
 *         config.json        the spec as the client sent it
 *         rootfs/            0711, mount point
 *         work               -> <root>/io.containerd.runtime.v2.task/NS/ID
 *         log                fifo the shim logs to
 *         shim-binary-path   0600, which shim runs it
 *         bootstrap.json     {"version":2,"address":"unix:///...","protocol":"ttrpc"}
 *         address            the same address as plain text, for older readers
 *         exits/             exit records (oci/exit_record.h), written by our shim
 *
 * A bundle is also the intent record of a task: it exists, with shim-binary-path in it, before a
 * shim is started, and goes only after the shim has gone. A daemon that starts finds every task by
 * its bundle.
 *
 * All calls block on disk.
 */
#pragma once

#include "base/err.h"

#define BUNDLE_ADDRESS_MAX 256

/* The directory of a runtime's bundles below state, and of its work directories below root. */
#define BUNDLE_V2 "io.containerd.runtime.v2.task"
#define BUNDLE_LINUX "io.containerd.runtime.v1.linux" /* runtime/linux_bundle.h */

struct bundle {
    char *ns;
    char *id;
    char *path;      /* absolute */
    char *work_path; /* absolute */
    int dir_fd;      /* the bundle directory */
};
#define BUNDLE_NULL      \
    {                    \
        .dir_fd = -EBADF \
    }

void bundle_done(struct bundle *b);

/* Makes everything but bootstrap.json and exits/. An existing bundle of that name is
 * ALREADY_EXISTS. On failure nothing is left. */
int bundle_create(const char *root, const char *state, const char *ns, const char *id,
                  const void *spec, size_t spec_len, const char *shim_binary, struct bundle *ret,
                  struct err *e);
/* The part that all runtimes share: config.json, rootfs/ and an empty work directory. The
 * directories of the runtime and of the namespace above it become 0711; -EPERM when they are not
 * ours. */
int bundle_begin(const char *root, const char *state, const char *runtime, const char *ns,
                 const char *id, const void *spec, size_t spec_len, struct bundle *ret,
                 struct err *e);
/* Opens an existing one. NOT_FOUND. */
int bundle_load(const char *root, const char *state, const char *runtime, const char *ns,
                const char *id, struct bundle *ret, struct err *e);
/* Makes the directory again if somebody has removed it, for the cleanup after its shim to work in.
 */
int bundle_revive(struct bundle *b, struct err *e);
/* Unmounts rootfs, removes it with rmdir (what is in an unmounted rootfs is never deleted), renames
 * the directories out of sight and removes them. Missing parts are fine. */
int bundle_remove(struct bundle *b, struct err *e);

/* Where the shim listens: "unix:///..." and protocol version 2 or 3. */
int bundle_write_bootstrap(struct bundle *b, const char *address, int version, struct err *e);
/* From bootstrap.json, else from `address`. NOT_FOUND when there is neither. */
int bundle_read_bootstrap(struct bundle *b, char **ret_address, int *ret_version, struct err *e);
/* NULL when the file is missing. The caller frees. */
char *bundle_read_shim_binary(struct bundle *b);
/* The pid in init.pid (or, of runtime v1, shim.pid), 0: none. It names a process only together with
 * other evidence. */
pid_t bundle_read_pid(const struct bundle *b, const char *file);
/* Opens the log fifo read-write (both sides keep it alive), non-blocking. */
int bundle_open_log(struct bundle *b, int *ret_fd);

/* Calls fn for each (namespace, id) with a bundle under state; names that start with '.' are
 * removed as leftovers of an interrupted removal. */
int bundle_walk(const char *state, const char *runtime,
                void (*fn)(void *userdata, const char *ns, const char *id), void *userdata,
                struct err *e);
/* Removes work directories under root that have no bundle, and calls fn for each. */
void bundle_sweep_work(const char *root, const char *state, const char *runtime,
                       void (*fn)(void *userdata, const char *ns, const char *id), void *userdata);

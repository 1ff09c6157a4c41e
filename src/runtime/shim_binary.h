/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a runtime's name to the shim that runs it, as containerd resolves them:
 *
 *     io.containerd.runc.v2, io.containerd.wherry.v2   our shim, unless the configuration names
 *                                                      another
 *     io.containerd.NAME.VERSION                       containerd-shim-NAME-VERSION, beside the
 *                                                      daemon or on PATH
 *     /an/absolute/path                                that file
 */
#pragma once

#include "base/err.h"

struct shim_binary {
    char *path;   /* absolute */
    bool is_ours; /* may be started without the `start` action and speaks our extensions */
};
void shim_binary_done(struct shim_binary *b);

/* own_path: our shim. override_path: the configured shim for our names, NULL or "" without.
 * daemon_dir: the directory of the running daemon. Errors in containerd's words: `invalid runtime
 * name X, ...`, `runtime "X" binary not installed "containerd-shim-...": file does not exist`,
 * `invalid custom binary path: ...`. */
int shim_binary_resolve(const char *runtime, const char *own_path, const char *override_path,
                        const char *daemon_dir, struct shim_binary *ret, struct err *e);

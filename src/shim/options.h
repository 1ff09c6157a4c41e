/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client chose for one container: containerd.runc.v1.Options, for runtime v1
 * containerd.linux.runc.CreateOptions, and of containerd's CRI plugin, when the runtime has a name
 * of its own, runtimeoptions.v1.Options: a table of its configuration with the options of runc, as
 * TOML (from 1.7 on; 1.6 sends none of it). They are kept in the bundle (options.json, and the file
 * "runtime" with the OCI runtime's path), where the delete action finds them again.
 */
#pragma once

#include "base/err.h"
#include "google/protobuf/any.pb-c.h"

#define OPTIONS_RUNTIME_ROOT "/run/containerd/runc"

struct options {
    bool no_pivot_root;
    bool no_new_keyring;
    bool systemd_cgroup;
    uint32_t io_uid;
    uint32_t io_gid;
    char *binary_name; /* NULL where the client left it open, as all strings here */
    char *root;
    char *shim_cgroup;
    char *criu_path;       /* of the criu program */
    char *criu_image_path; /* for daemons: they name it as Create's checkpoint */
    char *criu_work_path;
};

void options_done(struct options *o);
/* any may be NULL or empty: all defaults. ERR_INVALID_ARGUMENT. */
int options_decode(const Google__Protobuf__Any *any, struct options *ret, struct err *e);
/* runtime: the path in use. 0 or negative errno. */
int options_save(const struct options *o, const char *bundle, const char *runtime);
/* A missing or broken file yields defaults. *ret_runtime: NULL when the file is missing or empty.
 * 0 or -ENOMEM. */
int options_load(const char *bundle, struct options *ret, char **ret_runtime);
/* "<root or default>/<namespace>"; the caller frees. NULL: out of memory. */
char *options_runtime_root(const struct options *o, const char *namespace_);

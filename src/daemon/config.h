/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's configuration: containerd's config.toml, layouts of version 2 and 3, and our own
 * keys under [plugins."io.wherry.runtime.v1"]. Known keys are honoured, unknown ones collected as
 * warnings.
 *
 * Life: config_init() (defaults) -> config_load() -> command line overrides -> config_finish().
 */
#pragma once

#include "base/err.h"

#define CONFIG_DEFAULT_PATH "/etc/wherry/config.toml"
#define CONFIG_FILE_MAX (1u << 20)
#define CONFIG_IMPORTS_MAX 256

struct config {
    char *root;  /* /var/lib/wherry */
    char *state; /* /run/wherry */
    int64_t oom_score;
    char **imports;          /* absolute paths and globs, already merged into the rest */
    char **disabled_plugins; /* NULL-terminated, may be NULL */
    char **required_plugins;

    char *grpc_address; /* /run/wherry/wherry.sock */
    uint32_t grpc_uid, grpc_gid;
    uint64_t max_recv_message_bytes; /* 16 MiB */
    uint64_t max_send_message_bytes;
    char *ttrpc_address; /* <grpc address>.ttrpc after config_finish() */
    uint32_t ttrpc_uid, ttrpc_gid;

    char *log_level; /* "info" */

    /* [timeouts], milliseconds */
    uint64_t shim_cleanup_timeout_ms;  /* io.containerd.timeout.shim.cleanup, 5 s */
    uint64_t shim_load_timeout_ms;     /* io.containerd.timeout.shim.load, 5 s */
    uint64_t shim_shutdown_timeout_ms; /* io.containerd.timeout.shim.shutdown, 3 s */
    uint64_t task_state_timeout_ms;    /* io.containerd.timeout.task.state, 2 s */

    /* io.containerd.gc.v1.scheduler */
    double gc_pause_threshold;
    int64_t gc_deletion_threshold;
    int64_t gc_mutation_threshold;
    uint64_t gc_schedule_delay_ms;
    uint64_t gc_startup_delay_ms;

    char *content_sharing_policy; /* io.containerd.metadata.v1.bolt: "shared" or "isolated" */

    /* io.containerd.runtime.v1.linux */
    char *linux_shim;
    char *linux_runtime;
    char *linux_runtime_root;
    bool linux_no_shim;
    bool linux_shim_debug;

    char **platforms; /* io.containerd.runtime.v2.task */

    /* io.wherry.runtime.v1 */
    char *oci_runtime;     /* name or path; "": chosen by what the machine can run */
    char *shim;            /* path; "": our own */
    char *shim_socket_dir; /* /run/containerd/s */

    /* io.containerd.snapshotter.v1.overlayfs, .native */
    char *overlay_root_path; /* "": below root */
    bool overlay_upperdir_label;
    bool overlay_sync_remove;
    char **overlay_mount_options;
    char *native_root_path;

    char **differs;  /* io.containerd.service.v1.diff-service default */
    char **warnings; /* sentences for the log: unknown keys, with file and line */
};

int config_init(struct config *c, struct err *e);
void config_done(struct config *c);
/*
 * Reads a file over what is there, then the files it imports, in order. Lists of plugins and
 * imports grow, everything else is replaced. NOT_FOUND means that `path` itself is missing; all
 * other mistakes are INVALID_ARGUMENT and name file and line. On failure *c is good for
 * config_done() only.
 */
int config_load(struct config *c, const char *path, struct err *e);
/* Derives and checks what depends on several keys: ttrpc address, root and state that differ ("root
 * and state must be different paths: invalid argument"), lengths of socket paths. */
int config_finish(struct config *c, struct err *e);
/* As TOML, version 2, what was imported included; loading it again gives the same configuration. 0
 * or negative errno. */
int config_write(const struct config *c, int fd);

/* SPDX-License-Identifier: Apache-2.0 */
/* The flags of `wherry run`, and the specification they and the image make together. */
#pragma once

#include "cli/flags.h"
#include "cli/image.h"
#include "oci/spec.h"

struct run_options {
    bool detach, interactive, terminal, remove, read_only, privileged;
    const char *name, *cwd, *user, *entrypoint, *memory, *cpus, *pids_limit, *network, *hostname,
        *runtime, *stop_signal, *snapshotter;
    char **env, **env_files, **volumes, **mounts, **cap_add, **cap_drop, **labels;
};
extern const struct flag_table run_flags;

/* What is left of the flags once they are checked: everything but the image and the user. */
struct run_plan {
    char id[77];
    char **env; /* of -e and --env-file */
    struct mount_list mounts;
    struct strmap labels; /* of --label */
    struct spec spec;     /* limits, capabilities, network, hostname; borrows from here */
    struct spec_device *devices;
    size_t n_devices;
    char hostname[65];
    /* What the image and the flags make of the command. */
    char **args;
    char **merged_env;
    char *cwd;
};
void run_plan_done(struct run_plan *p);
/* Checks everything that can be checked without the daemon. */
int run_plan_make(const struct run_options *o, const char *namespace_, struct run_plan *ret,
                  struct err *e);
/* Adds what the image says: command, environment, working directory. args: what stood behind the
 * image's name. */
int run_plan_use_image(struct run_plan *p, const struct run_options *o,
                       const struct image_config *config, int n_args, char **args, struct err *e);

/* "1.5" -> quota and period in microseconds; at least 0.01. */
int run_parse_cpus(const char *s, int64_t *ret_quota_us, uint64_t *ret_period_us, struct err *e);
/* "TERM", "SIGTERM", "15" -> number. */
int run_parse_signal(const char *s, int *ret, struct err *e);

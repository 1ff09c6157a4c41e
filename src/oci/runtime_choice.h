/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which OCI runtime runs a container when neither the client nor the configuration names one: the
 * first of crun and runc that can do it on this machine.
 *
 * crun starts containers in a fraction of runc's time and is preferred. Its releases up to 1.8
 * refuse two things, which are looked at beforehand because the refusal would come only after the
 * container was half made: hosts with cgroup v1 hierarchies that leave controllers on the unified
 * one ("hybrid mode"), and configurations whose ociVersion is newer than 1.0. And of a hierarchy
 * that is in use but not mounted (a mount that ended before its last cgroup leaves it so) it makes
 * plain directories where the mount should be, which it never removes.
 */
#pragma once

#include "base/err.h"

struct runtime_facts {
    char *crun; /* absolute path, NULL: not installed */
    char *runc;
    /* /sys/fs/cgroup holds v1 hierarchies, and the cgroup2 mount beside them has controllers. */
    bool has_split_cgroups;
    /* A v1 hierarchy of ours is not mounted at /sys/fs/cgroup/<its controllers>. */
    bool has_unmounted_cgroups;
};

struct runtime_choice {
    char *path; /* absolute */
    char *why;  /* one sentence for the log */
};

void runtime_facts_done(struct runtime_facts *f);
void runtime_choice_done(struct runtime_choice *c);

/* search_path NULL: $PATH; cgroup_root NULL: /sys/fs/cgroup; cgroup_of_self NULL:
 * /proc/self/cgroup. 0 or -ENOMEM. */
int runtime_facts_find(const char *search_path, const char *cgroup_root, const char *cgroup_of_self,
                       struct runtime_facts *ret);
/* oci_version: of config.json, may be NULL. ERR_NOT_FOUND when neither is installed. */
int runtime_choice_make(const struct runtime_facts *f, const char *oci_version,
                        struct runtime_choice *ret, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing runtime specifications (OCI runtime specification 1.0): config.json of a container and
 * the process object of an exec, as containerd's clients generate them for Linux.
 *
 * The version written is "1.0.2", which every runtime in use accepts.
 */
#pragma once

#include "base/err.h"
#include "base/mount.h"
#include "base/strmap.h"
#include "oci/user.h"

#define SPEC_VERSION "1.0.2"
#define SPEC_TYPE_URL "types.containerd.io/opencontainers/runtime-spec/1/Spec"
#define SPEC_PROCESS_TYPE_URL "types.containerd.io/opencontainers/runtime-spec/1/Process"
#define SPEC_MAX (16u << 20)
#define SPEC_DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Capabilities as a mask of 1 << CAP_X (linux/capability.h). */
#define SPEC_CAPS_DEFAULT UINT64_C(0xa80425fb)
/* "NET_ADMIN", "cap_net_admin", "ALL". ERR_INVALID_ARGUMENT for others. */
int spec_cap_parse(const char *name, uint64_t *ret_mask, struct err *e);
/* Capabilities a process of ours could have: the bounding set, from /proc/self/status. */
uint64_t spec_caps_bounding(void);

enum spec_network {
    SPEC_NETWORK_PRIVATE, /* a namespace of its own with nothing in it but the loopback device */
    SPEC_NETWORK_HOST,    /* the host's, with its /etc/hosts and /etc/resolv.conf read-only */
};

struct spec_device {
    char *path;
    char type; /* 'b' or 'c' */
    uint32_t major, minor, mode, uid, gid;
};

/* Everything is borrowed for the duration of spec_format(). Zero reads as "not given". */
struct spec {
    const char *id;
    const char *namespace_;
    char *const *args;
    char *const *env; /* as it is, nothing is added */
    const char *cwd;  /* absolute */
    bool terminal;
    const struct user *user;
    const char *hostname;
    bool read_only;
    bool privileged; /* all capabilities and devices, nothing masked, /sys writable */
    bool no_new_privileges;
    bool cgroup_namespace; /* the host has nothing but cgroup v2 */
    enum spec_network network;
    uint64_t caps;
    const struct mount_list *mounts; /* behind the default ones */
    const struct spec_device *devices;
    size_t n_devices;
    uint64_t memory_bytes;
    int64_t cpu_quota_us;
    uint64_t cpu_period_us;
    int64_t pids_limit;
    uint64_t open_files; /* RLIMIT_NOFILE; 0: 1024 */
    const struct strmap *annotations;
};

/* The JSON text, compact. The caller frees. */
int spec_format(const struct spec *s, char **ret, struct err *e);

/* Every device node below /dev but terminals, sockets and shared memory, for privileged containers.
 */
int spec_host_devices(struct spec_device **ret, size_t *ret_n, struct err *e);
void spec_devices_free(struct spec_device *devices, size_t n);

/* A process for a running container: what its own init has (user, directory, environment,
 * capabilities, limits) with these changes. NULL and empty: as init. */
struct spec_exec {
    char *const *args;
    char *const *env; /* NAME=value, added or replaced */
    const char *cwd;
    bool terminal;
    const struct user *user;
    bool privileged; /* all capabilities of the bounding set */
};
/* spec: the container's config.json. The caller frees *ret. */
int spec_exec_format(const void *spec, size_t n, const struct spec_exec *x, char **ret,
                     struct err *e);

/* What listings show of a stored spec; absent members stay NULL. */
struct spec_summary {
    char **args;
    char **env;
    char *cwd;
    uint32_t uid, gid;
    bool terminal;
};
void spec_summary_done(struct spec_summary *s);
int spec_summarise(const void *spec, size_t n, struct spec_summary *ret, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the worker takes away from itself before it reads the first byte from a stranger.
 *
 * With CAP_SYS_ADMIN: mount, network, IPC, UTS, cgroup and pid namespaces of its own, the target
 * directory as the root of all it can see (nosuid, nodev, noexec), only the capabilities the job
 * needs. Without it, that part is left out. Always: no_new_privs, not dumpable, dies with its
 * parent, Landlock to the target, rlimits, and a seccomp filter that knows neither execve nor
 * sockets nor mounts nor executable memory.
 *
 * Whatever cannot be applied is an error, except what this kernel does not have at all (Landlock).
 *
 * Opaque directories of overlayfs are xattrs of the trusted. class, which the kernel gives to
 * nobody without CAP_SYS_ADMIN. The job keeps it for that one kind of whiteouts. What the
 * capability would be good for otherwise (mount, setns, unshare, bpf, ...) the filter does not let
 * through.
 */
#pragma once

#include "base/err.h"

struct confine {
    int target_fd;   /* the only directory to be seen; -EBADF: none at all */
    int *parent_fds; /* replaced by read-only views of the same directories */
    size_t n_parents;
    bool reads_parents;  /* the files in them too, whoever owns them: keep DAC_READ_SEARCH */
    bool trusted_xattrs; /* keep CAP_SYS_ADMIN */
    bool needs_owner;    /* keep CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SETFCAP */
    uint64_t address_space_bytes;
    uint64_t file_bytes;
    unsigned cpu_seconds;
    unsigned open_files; /* beside a few, and one for each parent */
};

/*
 * Forks where there is a pid namespace: returns 0 in the process that does the job. The other one
 * waits, and ends with the status of the first (128 + signal if it was killed). target_fd stays the
 * same number and is opened anew inside.
 */
int confine_apply(const struct confine *c, struct err *e);

/* confine_seccomp.c: inside the folder only. */
int confine_seccomp(struct err *e);
/* confine_landlock.c: inside the folder only. */
int confine_landlock(const struct confine *c, struct err *e);

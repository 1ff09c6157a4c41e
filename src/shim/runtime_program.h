/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of the OCI runtime, ready to be executed.
 *
 * A container could reach its runtime's file by /proc/PID/exe and overwrite it, so crun runs itself
 * a second time from a place that cannot be written to, unless it finds itself there already. That
 * costs each call a temporary file, two mounts in the host's table and a second start of the
 * program, about a third of all it does. Started from a detached read-only mount of its own file,
 * it is content at once.
 *
 * runc protects itself otherwise and would find its way blocked by such a mount, and a script's
 * interpreter cannot open one, so only a program named crun is treated so. Without the system calls
 * (open_tree(2), Linux 5.2; mount_setattr(2), 5.12) everything is executed by its path.
 */
#pragma once

#include <sys/types.h>
#include <time.h>

struct runtime_program {
    int fd; /* of the mount; -EBADF: by path */
    /* The file that it is: an upgrade puts another in its place. */
    dev_t device;
    ino_t inode;
    struct timespec changed;
};
#define RUNTIME_PROGRAM_NULL \
    {                        \
        .fd = -EBADF         \
    }

void runtime_program_done(struct runtime_program *p);
/* What to execute in place of path, which is absolute: p's own fd, or -EBADF for the path itself.
 * Cheap as long as the file is the same. */
int runtime_program_fd(struct runtime_program *p, const char *path);

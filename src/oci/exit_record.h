/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a process of a container ended, kept in its bundle so that it outlives the shim: the file
 * exits/init, or exits/exec.<exec id>, holding "<pid> <status> <seconds> <nanoseconds>\n".
 *
 * The shim writes it before it tells anybody; who finds the shim dead reads it. It is written
 * beside the target and renamed, so a reader sees a whole record or none. It is not synced: bundles
 * live on a tmpfs, and no process outlives the machine.
 */
#pragma once

#include <time.h>

#include "base/attr.h"

struct exit_record {
    pid_t pid;
    uint32_t status; /* exit code, or 128 + signal */
    struct timespec at;
};

/* exec_id NULL: the container's first process. 0 or negative errno. */
int exit_record_write(const char *bundle, const char *exec_id, const struct exit_record *record);
/* -ENOENT: has not ended, as far as is known; -EBADMSG: not a record. */
int exit_record_read(const char *bundle, const char *exec_id, struct exit_record *ret);
/* A record that is not there is no error. */
int exit_record_remove(const char *bundle, const char *exec_id);

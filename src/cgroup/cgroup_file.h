/* SPDX-License-Identifier: Apache-2.0 */
/* For the files of cgroup.h alone. */
#pragma once

#include "cgroup/cgroup.h"

/* How deep it is gone into the groups that a container made below its own. */
#define CGROUP_DEPTH_MAX 16
/* Bytes of a cgroup.procs. */
#define CGROUP_PROCS_MAX (1024 * 1024)

/* Into a file of a group's directory; dir may be NULL. Whether it helped shows in the group. */
void cgroup_write(const char *dir, const char *name, const char *text);
/* Freezes it in a v1 hierarchy. */
void cgroup_freeze_v1(const struct cgroup *c);

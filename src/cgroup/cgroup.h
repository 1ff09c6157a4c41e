/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control group of a container: where it is, what it counts, and how to end everything in it.
 *
 * Known from /proc/<pid>/cgroup of the container's first process (cgroups(7)); the text is kept,
 * also in the bundle for the delete action, and each use looks its line up. On a hybrid machine the
 * v1 hierarchies count, as for containerd.
 */
#pragma once

#include "base/err.h"
#include "google/protobuf/any.pb-c.h"

#define CGROUP_ROOT "/sys/fs/cgroup"

struct cgroup {
    char *text;       /* NULL: not known */
    const char *root; /* borrowed: CGROUP_ROOT, another one for tests */
    bool is_unified;  /* root itself is a cgroup2 mount */
};

/* From /proc/<pid>/cgroup. 0 or negative errno. */
int cgroup_init(struct cgroup *c, pid_t pid);
/* From text in that format; root NULL: CGROUP_ROOT. */
int cgroup_init_text(struct cgroup *c, const char *text, const char *root, bool is_unified);
/* From the path that an OCI configuration names, in the hierarchies in which the caller is.
 * -EINVAL: not absolute (systemd's notation). */
int cgroup_init_path(struct cgroup *c, const char *path);
void cgroup_done(struct cgroup *c);
static inline bool cgroup_is_known(const struct cgroup *c)
{
    return c->text != NULL;
}

/* <bundle>/cgroup. 0 or negative errno. */
int cgroup_save(const struct cgroup *c, const char *bundle);
int cgroup_load(struct cgroup *c, const char *bundle);

/* Directory of a v1 controller (or named hierarchy, "name=systemd"), or (controller NULL) in the
 * unified hierarchy. NULL: none, the root group, or out of memory. The caller frees. */
char *cgroup_dir(const struct cgroup *c, const char *controller);

/* Whether the group that counts still exists. */
bool cgroup_exists(const struct cgroup *c);
/* Whether the process is in it or below, in any of the hierarchies. */
bool cgroup_has_process(const struct cgroup *c, pid_t pid);
/* containerd's metrics. ERR_NOT_FOUND "cgroup does not exist: not found". The caller frees with
 * pb_free(). */
int cgroup_stats(const struct cgroup *c, Google__Protobuf__Any **ret, struct err *e);
/* SIGKILL to everything in it and below, and cgroup_let_end(); never to the root group or to one
 * that holds the caller (-EPERM). Does not wait for the ends. Returns how many processes were found
 * (0: it is empty), or negative errno. */
int cgroup_kill(const struct cgroup *c);
/* Kills until it is empty, for at most timeout_ms, and removes its directories. Returns how many
 * processes stay, or negative errno of cgroup_kill(). */
int cgroup_end(const struct cgroup *c, int timeout_ms);
/* Lets a paused container go on. */
void cgroup_thaw(const struct cgroup *c);
/* Lets what was killed end. In a v1 freezer SIGKILL waits until the process is thawed, so this
 * thaws the group and those below it, which the container may have frozen itself, and takes the
 * processes out of it when a group above is frozen, which is not the container's to thaw. Whatever
 * is in it must have been sent SIGKILL. */
void cgroup_let_end(const struct cgroup *c);
/* Whether it is paused, as far as can be seen: true if nothing can. */
bool cgroup_is_frozen(const struct cgroup *c);
/* Whether SIGKILL alone would not end all of it, since some of it is frozen in a v1 freezer. */
bool cgroup_outlasts_kill(const struct cgroup *c);
/* Removes its directories if they are empty. */
void cgroup_remove(const struct cgroup *c);
/* Puts a process into path below every mounted hierarchy, making the directories. -EINVAL for a path
 * that leaves the tree, -ENOENT when no hierarchy is mounted. */
int cgroup_add_process(const char *path, pid_t pid);

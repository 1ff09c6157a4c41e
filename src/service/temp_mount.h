/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts for the length of one call: made in a mount namespace of their own (store/mount_space.h)
 * on mount points below <root>/tmpmounts, so that nobody else sees them and they are gone with the
 * call, in whatever way it ends.
 */
#pragma once

#include "base/mount.h"

#define TEMP_MOUNTS_MAX 2

/* fds[i] is the root of what lists[i] mounts; open during the call only. Children spawned by it
 * share the mount namespace. */
typedef int (*temp_mount_fn)(void *userdata, const int *fds, struct err *e);

/* What fn returned, or why the mounts could not be made. An empty list is an empty directory. root:
 * of the daemon. */
int temp_mount_run(const char *root, const struct mount_list *lists, size_t n, temp_mount_fn fn,
                   void *userdata, struct err *e);

/* The same mounts, not to be written to. An overlay's upper directory becomes its nearest lower
 * one, so that it can be looked at while a container uses it (two mounts with one upper directory
 * the kernel does not allow for, two mounts that read it do no harm). -ENOMEM. */
int temp_mount_make_read_only(struct mount_list *l);

/* Mount points that a killed daemon left: they are empty, its mounts went with it. */
void temp_mount_remove_old(const char *root);

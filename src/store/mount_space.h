/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount namespace for the length of one function. It runs on a thread of its own, since a thread
 * that has left the namespace of its process is of no further use. What it mounts nobody else sees,
 * and all of it is gone when the thread ends, in whatever way the process ends. Children it spawns
 * share the namespace. The caller waits.
 */
#pragma once

#include "base/err.h"

typedef int (*mount_space_fn)(void *userdata, struct err *e);

/* What fn returned, or why it could not be called. */
int mount_space_run(mount_space_fn fn, void *userdata, struct err *e);

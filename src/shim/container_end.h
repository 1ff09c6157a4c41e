/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of containers without the OCI runtime, which may have been removed, and for the shim's
 * own sake: it was told to leave, and nobody would find them again.
 */
#pragma once

#include "shim/container.h"

/* Kills and deletes every container, whatever state it is in, as a client that is in no hurry
 * would: its end is told, its mounts and groups go. Each that has gone is told by shim->changed;
 * what cannot be deleted stays, and is logged. */
void containers_end(struct shim *s);
/* SIGKILL to all its processes, also those of a paused one. False: there was none. */
bool container_kill_all(struct container *c);
/* runc mounts its own file in the directory where it keeps the container's state, for a moment of
 * each call, and one that is killed then leaves it there: the directory could not be removed. */
void container_unmount_state(const struct container *c);
/* After the runtime has deleted the container: the directory, if it is still there. Of that runc
 * says nothing but in its log. */
void container_remove_state(const struct container *c);
/* What the OCI runtime keeps of it, and its groups, for a container that is to be deleted. Its
 * processes are killed. */
void container_delete_state(struct container *c);
/* Without the OCI runtime and without waiting: kills and unmounts. */
void container_abandon(struct container *c);

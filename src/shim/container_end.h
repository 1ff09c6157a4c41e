/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of containers for the shim's own sake: it was told to leave, and nobody would find them
 * again.
 */
#pragma once

#include "shim/container.h"

/* Kills and deletes every container, whatever state it is in, as a client that is in no hurry
 * would: its end is told, its mounts and groups go. Each that has gone is told by shim->changed;
 * what cannot be deleted stays, and is logged. */
void containers_end(struct shim *s);
/* Without the OCI runtime and without waiting: kills and unmounts. */
void container_abandon(struct container *c);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -v and --mount: mounts of a container's specification. Destinations are absolute and clean, not
 * the root and not below /proc. struct mount's target is the destination in the container.
 */
#pragma once

#include "base/mount.h"

/* SOURCE:DESTINATION[:OPTION[,OPTION]]: a directory or file of the host; options ro, rw, and the
 * propagations. ERR_INVALID_ARGUMENT, ERR_NOT_FOUND for a source that is not there. */
int volume_parse(const char *s, struct mount_list *ret, struct err *e);
/* type=bind|tmpfs,source=PATH,destination=PATH[,readonly][,tmpfs-size=SIZE][,tmpfs-mode=MODE]
 * [,bind-propagation=P]; src, dst and target are other names. */
int volume_parse_mount(const char *s, struct mount_list *ret, struct err *e);

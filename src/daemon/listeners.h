/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's sockets: 0660 of uid:gid from the moment they exist. */
#pragma once

#include "base/err.h"

/* Makes the directory (0711) if it is missing; replaces a socket that nobody listens on.
 * UNAVAILABLE `listen on <path>: another process serves there: ...`. */
int listener_open(const char *path, uint32_t uid, uint32_t gid, int *ret_fd, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of a directory tree with everything that a filesystem keeps about it: owners, modes,
 * times, extended attributes, hard links within the tree, holes, device nodes, fifos, sockets.
 * Links are copied, never followed; a mount point below ends it with -EXDEV. Blocks of files are
 * shared where the filesystem can.
 *
 * Both trees must be quiet. The depth is not limited; two fds are open per tree whatever it is.
 */
#pragma once

#include "base/attr.h"

/* Both directories exist; `to` is empty and gets the looks of `from`. Names are one component. 0 or
 * negative errno, and then `to` holds a part. */
int copy_tree(int from_fd, const char *from, int to_fd, const char *to);

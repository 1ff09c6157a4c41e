/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One daemon a directory: a lock file in root and in state, held (flock(2)) as long as the process
 * lives and naming it, so that a second daemon can say who the first one is.
 *
 * A daemon that was killed may leave a child that has not come to its exec yet, and until then has
 * the lock as well: a lock whose holder has ended is waited for.
 */
#pragma once

#include "base/err.h"

/* FAILED_PRECONDITION `<dir> is in use by another wherryd (pid N): stop it or choose another
 * --<flag>`. */
int holder_acquire(const char *dir, const char *flag, int *ret_fd, struct err *e);

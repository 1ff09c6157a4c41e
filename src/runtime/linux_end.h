/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of tasks of runtime v1. Their shims never end by themselves, they are killed; and they
 * have no `delete` action: what a dead one left of its container is removed by calling the OCI
 * runtime here. Blocks: for pool threads.
 */
#pragma once

#include "runtime/linux_bundle.h"
#include "runtime/shim_launch.h"

/* Kills the shim. NULL, or one whose process is not known: by shim.pid, if that process runs in the
 * bundle. */
void linux_kill_shim(struct shim *shim, struct bundle *b);

/* Ends and removes what is left of the container: `<runtime> delete --force`, then its control
 * group and the mounts on its rootfs. On failure all has been tried. ret, filled in any case:
 * killed, now. Idempotent. */
int linux_clean_up(struct bundle *b, uint64_t timeout_ms, struct task_exit *ret, struct err *e);

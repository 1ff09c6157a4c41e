/* SPDX-License-Identifier: Apache-2.0 */
/* containerd.types.Mount and our mounts. */
#pragma once

#include "base/mount.h"
#include "types.pb-c.h"

/* New messages, to be freed with the message they are put into. 0 or negative errno. */
int mount_message_new_list(const struct mount_list *from, Pb__Types__Mount ***ret, size_t *ret_n);
/* Copies. ERR_INVALID_ARGUMENT for more than MOUNT_LIST_MAX. */
int mount_message_read_list(Pb__Types__Mount *const *from, size_t n, struct mount_list *ret,
                            struct err *e);

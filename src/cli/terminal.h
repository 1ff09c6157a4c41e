/* SPDX-License-Identifier: Apache-2.0 */
/* Our own terminal: raw while a container uses it, and its size. */
#pragma once

#include <termios.h>

#include "base/attr.h"

struct terminal {
    int fd; /* -EBADF: not raw */
    struct termios saved;
};
#define TERMINAL_INIT \
    {                 \
        .fd = -EBADF  \
    }

/* Makes fd raw. -ENOTTY. */
int terminal_raw(struct terminal *t, int fd);
/* Gives the terminal back as it was. No-op if not raw. */
void terminal_restore(struct terminal *t);
/* Columns and rows of the first of our standard fds that is a terminal; false if there is none or
 * it says 0. */
bool terminal_size(uint32_t *ret_width, uint32_t *ret_height);

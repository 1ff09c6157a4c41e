/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <sys/ioctl.h>

int terminal_raw(struct terminal *t, int fd)
{
    struct termios raw;

    if (tcgetattr(fd, &t->saved) < 0)
        return -errno;
    raw = t->saved;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(fd, TCSANOW, &raw) < 0)
        return -errno;
    t->fd = fd;
    return 0;
}

void terminal_restore(struct terminal *t)
{
    if (t->fd < 0)
        return;
    tcsetattr(t->fd, TCSANOW, &t->saved);
    t->fd = -EBADF;
}

bool terminal_size(uint32_t *ret_width, uint32_t *ret_height)
{
    for (int fd = 0; fd < 3; fd++) {
        struct winsize size;

        if (ioctl(fd, TIOCGWINSZ, &size) < 0)
            continue;
        *ret_width = size.ws_col;
        *ret_height = size.ws_row;
        return size.ws_col > 0 && size.ws_row > 0;
    }
    return false;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Loop devices, loop(4). */
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/mount.h"

#define ATTACH_TRIES 16

int mount_loop_attach(const char *file, bool read_only, char *ret_path, size_t size)
{
    int mode = read_only ? O_RDONLY : O_RDWR;

    _close_ int file_fd = neg_errno(open(file, mode | O_CLOEXEC));
    if (file_fd < 0)
        return file_fd;
    _close_ int control = neg_errno(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    if (control < 0)
        return control;

    /* Between asking for a free device and taking it somebody else may take it. */
    for (int tries = 0; tries < ATTACH_TRIES; tries++) {
        int number = neg_errno(ioctl(control, LOOP_CTL_GET_FREE));
        if (number < 0)
            return number;
        snprintf(ret_path, size, "/dev/loop%d", number);
        _close_ int fd = neg_errno(open(ret_path, mode | O_CLOEXEC));
        if (fd < 0)
            return fd;
        struct loop_config config = {.fd = (uint32_t)file_fd};
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0);
        if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
            return TAKE_FD(fd);
        if (errno != EBUSY)
            return -errno;
    }
    return -EBUSY;
}

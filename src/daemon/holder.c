/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/holder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "base/fs.h"
#include "base/str.h"

int holder_acquire(const char *dir, const char *flag, int *ret_fd, struct err *e)
{
    _free_ char *path = fs_join(dir, "daemon.lock");
    if (!path)
        return err_oom(e);
    _close_ int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, -errno, "open %s", path);

    char text[32] = "";
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return err_errno(e, -errno, "lock %s", path);
        ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s is in use by another wherryd (pid %s): stop it or choose another --%s",
                       dir, *text ? text : "unknown", flag);
    }
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return err_errno(e, -errno, "write %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

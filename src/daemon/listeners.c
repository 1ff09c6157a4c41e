/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/listeners.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/sock.h"

#define BACKLOG 512

int listener_open(const char *path, uint32_t uid, uint32_t gid, int *ret_fd, struct err *e)
{
    const char *slash = strrchr(path, '/');
    _free_ char *dir = slash && slash != path ? strndup(path, (size_t)(slash - path)) : strdup("/");
    _close_ int fd = -EBADF;

    if (!dir)
        return err_oom(e);
    int r = fs_mkdir_p(AT_FDCWD, dir, 0711);
    if (r < 0)
        return err_errno(e, r, "make directory %s", dir);
    r = sock_listen(path, 0660, BACKLOG, &fd);
    if (r == -EADDRINUSE)
        return err_set(e, ERR_UNAVAILABLE,
                       "listen on %s: another process serves there: choose another --address",
                       path);
    if (r < 0)
        return err_errno(e, r, "listen on %s", path);
    if ((uid != geteuid() || gid != getegid()) && chown(path, uid, gid) < 0)
        return err_errno(e, -errno, "give %s to %u:%u", path, uid, gid);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

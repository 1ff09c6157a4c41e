/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/holder.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"

#define LEFT_CHILD_MS 3000 /* what a child may take to its exec on a busy machine */

/* Who says in the file that it holds it, "" when nobody does. */
static void read_holder(int fd, char *ret, size_t size)
{
    ssize_t n = pread(fd, ret, size - 1, 0);

    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
}

static bool has_ended(const char *holder)
{
    _cleanup_(proc_done) struct proc p = PROC_NULL;
    uint32_t pid;

    if (str_to_u32(holder, &pid) < 0 || pid == 0 || pid > INT32_MAX)
        return false;
    int r = proc_open((pid_t)pid, &p);
    return r == -ESRCH || (r >= 0 && proc_wait_end(&p, 0) > 0);
}

/* 0, -ETIMEDOUT when somebody holds it. */
static int lock(int fd, char *ret_holder, size_t size)
{
    int r = fs_lock(fd, 0);

    if (r != -ETIMEDOUT)
        return r;
    read_holder(fd, ret_holder, size);
    return has_ended(ret_holder) ? fs_lock(fd, LEFT_CHILD_MS) : r;
}

int holder_acquire(const char *dir, const char *flag, int *ret_fd, struct err *e)
{
    _free_ char *path = fs_join(dir, "daemon.lock");
    if (!path)
        return err_oom(e);
    _close_ int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, -errno, "open %s", path);

    char text[32] = "";
    int r = lock(fd, text, sizeof(text));
    if (r == -ETIMEDOUT)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "%s is in use by another wherryd (pid %s): stop it or choose another --%s",
                       dir, *text ? text : "unknown", flag);
    if (r < 0)
        return err_errno(e, r, "lock %s", path);
    int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return err_errno(e, -errno, "write %s", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

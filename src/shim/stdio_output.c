/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/stdio_output.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "base/fs.h"
#include "base/str.h"

static uint64_t bytes_in_pipe(int fd)
{
    struct stat st;
    int n = 0;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode) || ioctl(fd, FIONREAD, &n) < 0)
        return 0;
    return (uint64_t)n;
}

/* The reader sees the end when we have closed, but may need a while to get there. Our own reader
 * keeps nothing from it. */
void stdio_output_keep_rest(struct stdio_output *o)
{
    char path[32];

    if (o->rest_fd >= 0 || bytes_in_pipe(o->target_fd) == 0)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", o->target_fd);
    o->rest_fd = neg_errno(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
}

void stdio_output_close(struct stdio_output *o)
{
    copy_stop(&o->copy);
    close_fd(&o->source_fd);
    close_fd(&o->target_fd);
    free(o->path);
    o->path = NULL;
}

uint64_t stdio_output_unread(const struct stdio_output *o)
{
    uint64_t n = bytes_in_pipe(o->rest_fd);

    if (copy_is_running(&o->copy))
        n += bytes_in_pipe(o->source_fd) + copy_held(&o->copy) + bytes_in_pipe(o->target_fd);
    return n;
}

int stdio_is_fifo(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return -errno;
    return S_ISFIFO(st.st_mode);
}

/* A link may stand for a file that is there, but none is made through one: it would be made
 * wherever the owner of the link likes. O_EXCL is what says so to open(2). */
static int open_log_file(const char *path)
{
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = neg_errno(open(path, flags));

    if (fd == -ENOENT)
        fd = neg_errno(open(path, flags | O_CREAT | O_EXCL, 0644));
    if (fd == -EEXIST) /* somebody was faster, or it is a link to nothing */
        fd = neg_errno(open(path, flags));
    return fd;
}

int stdio_output_open_uri(struct stdio_output *o, const char *uri, struct err *e)
{
    const char *path = str_after_prefix(uri, "file://");
    _free_ char *parent = strdup(path);

    if (!parent)
        return err_oom(e);
    char *slash = strrchr(parent, '/');
    if (path[0] != '/' || !slash[1])
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "log file \"%.500s\" is not an absolute path: invalid argument", uri);
    *slash = '\0';
    int r = *parent ? fs_mkdir_p(AT_FDCWD, parent, 0755) : 0;
    if (r < 0)
        return err_errno(e, r, "failed to make directory %.500s", parent);
    o->target_fd = open_log_file(path);
    if (o->target_fd < 0)
        return err_errno(e, o->target_fd, "failed to open log file %.500s", path);
    return 0;
}

int stdio_output_open_path(struct stdio_output *o, const char *path, struct err *e)
{
    const char *plain = path ? str_after_prefix(path, "fifo://") : NULL;

    if (plain)
        path = plain;
    if (str_empty(path))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "stdout and stderr must both be given: open : no such file or directory");
    int r = stdio_is_fifo(path);
    if (r < 0)
        return err_errno(e, r, "containerd-shim: opening %.500s failed", path);
    if (r == 1) {
        o->path = strdup(path);
        return o->path ? 0 : err_oom(e);
    }
    o->target_fd = neg_errno(open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (o->target_fd < 0)
        return err_errno(e, o->target_fd, "containerd-shim: opening %.500s failed", path);
    return 0;
}

int stdio_output_try_fifo(struct stdio_output *o)
{
    _close_ int probe = neg_errno(open(o->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC));

    if (probe == -ENXIO)
        return 0;
    if (probe < 0)
        return probe;
    int fd = neg_errno(open(o->path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (fd < 0)
        return fd;
    o->target_fd = fd;
    free(o->path);
    o->path = NULL;
    return 1;
}

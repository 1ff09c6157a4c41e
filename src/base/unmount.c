/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fs.h"
#include "base/mount.h"

#define BUSY_TRIES 50
#define BUSY_PAUSE_MS 50
#define STACKED_MAX 4096
#define MOUNTINFO_MAX (64 * 1024 * 1024)

int mount_unmount_once(const char *target, int flags)
{
    if (umount2(target, flags | UMOUNT_NOFOLLOW) == 0 || errno == EINVAL || errno == ENOENT)
        return 0;
    return -errno;
}

int mount_unmount_all(const char *target, bool lazy)
{
    const struct timespec pause = {.tv_nsec = BUSY_PAUSE_MS * 1000000L};
    int busy = 0;

    /* Several mounts may lie on one another. */
    for (int done = 0; done < STACKED_MAX;) {
        if (umount2(target, UMOUNT_NOFOLLOW) == 0) {
            done++;
            continue;
        }
        if (errno == EINVAL || errno == ENOENT)
            return 0;
        if (errno != EBUSY)
            return -errno;
        if (++busy < BUSY_TRIES) {
            nanosleep(&pause, NULL);
        } else if (!lazy) {
            return -EBUSY;
        } else if (umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW) < 0) {
            return errno == EINVAL || errno == ENOENT ? 0 : -errno;
        }
    }
    return -ELOOP;
}

/* The mount point of a line of /proc/self/mountinfo, field 5, its octal escapes undone in place:
 * proc_pid_mountinfo(5). NULL for a line that is none. */
static char *mount_point(char *line)
{
    char *s = line;

    for (int field = 1; field < 5; field++) {
        s = strchr(s, ' ');
        if (!s)
            return NULL;
        s++;
    }
    char *out = s;
    const char *in = s;
    while (*in && *in != ' ') {
        if (in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' &&
            in[3] >= '0' && in[3] <= '7') {
            *out++ = (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0'));
            in += 4;
        } else {
            *out++ = *in++;
        }
    }
    *out = 0;
    return s;
}

static bool is_at_or_below(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    while (n > 1 && prefix[n - 1] == '/')
        n--;
    return strncmp(path, prefix, n) == 0 && (path[n] == 0 || path[n] == '/');
}

int mount_unmount_below(const char *prefix)
{
    _free_ char *table = NULL;
    size_t len;
    int first = 0;

    int r = fs_read_file(AT_FDCWD, "/proc/self/mountinfo", MOUNTINFO_MAX, &table, &len);
    if (r < 0)
        return r;
    /* A mount comes behind the one it lies on, so from the last line to the first. */
    char *end = table + len;
    while (end > table) {
        if (end[-1] == '\n')
            *--end = 0;
        char *line = end;
        while (line > table && line[-1] != '\n')
            line--;
        char *path = mount_point(line);
        if (path && is_at_or_below(path, prefix)) {
            r = mount_unmount_once(path, MNT_DETACH);
            if (r < 0 && first == 0)
                first = r;
        }
        end = line;
    }
    return first;
}

bool mount_is_mountpoint(const char *path)
{
    struct statx st;

    return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &st) == 0 &&
           (st.stx_attributes & STATX_ATTR_MOUNT_ROOT);
}

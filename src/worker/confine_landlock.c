/* SPDX-License-Identifier: Apache-2.0 */
/* landlock(7). The numbers of newer versions than the oldest headers know are written out here. */
#include <linux/landlock.h>
#include <sys/syscall.h>

#include "worker/confine.h"

#define FS_ALL_V1 ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)
#define FS_REFER (UINT64_C(1) << 13)     /* version 2 */
#define FS_TRUNCATE (UINT64_C(1) << 14)  /* version 3 */
#define NET_ALL UINT64_C(3)              /* version 4: bind and connect, TCP */
#define FS_IOCTL_DEV (UINT64_C(1) << 15) /* version 5 */
#define SCOPE_ALL UINT64_C(3)            /* version 6: abstract sockets, signals */

/* struct landlock_ruleset_attr of version 6; its size says how much of it is meant. */
struct ruleset {
    uint64_t fs, net, scoped;
};

static const uint64_t size_of_version[] = {0, 8, 8, 8, 16, 16, 24};

static int allow(int ruleset_fd, int dir_fd, uint64_t access)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = dir_fd};
    return (int)neg_errno(
        syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
}

int confine_landlock(const struct confine *c, struct err *e)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 0 && (errno == ENOSYS || errno == EOPNOTSUPP))
        return 0;
    if (version <= 0)
        return err_errno(e, version < 0 ? -errno : -EINVAL, "ask for the version of Landlock");

    struct ruleset all = {
        .fs = FS_ALL_V1 | (version >= 2 ? FS_REFER : 0) | (version >= 3 ? FS_TRUNCATE : 0) |
              (version >= 5 ? FS_IOCTL_DEV : 0),
        .net = version >= 4 ? NET_ALL : 0,
        .scoped = version >= 6 ? SCOPE_ALL : 0,
    };
    size_t size = size_of_version[MIN_OF(version, (long)ARRAY_SIZE(size_of_version) - 1)];
    _close_ int fd = (int)neg_errno(syscall(SYS_landlock_create_ruleset, &all, size, 0));
    if (fd < 0)
        return err_errno(e, fd, "make a Landlock ruleset");

    uint64_t never = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_SOCK | FS_IOCTL_DEV;
    int r = c->target_fd >= 0 ? allow(fd, c->target_fd, all.fs & ~never) : 0;
    for (size_t i = 0; i < c->n_parents && r == 0; i++)
        r = allow(fd, c->parent_fds[i],
                  LANDLOCK_ACCESS_FS_READ_DIR |
                      (c->reads_parents ? (uint64_t)LANDLOCK_ACCESS_FS_READ_FILE : 0));
    if (r < 0)
        return err_errno(e, r, "add a Landlock rule");
    if (syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        return err_errno(e, -errno, "apply Landlock");
    return 0;
}

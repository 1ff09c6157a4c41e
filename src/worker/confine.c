/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NOBODY 65534

#if defined(__SANITIZE_ADDRESS__) || HAS_TSAN
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* glibc 2.36 has wrappers for these, but its <sys/mount.h> and <linux/mount.h> clash before 2.37.
 */
static int open_tree_clone(int fd)
{
    return (int)neg_errno(
        syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
}

static int set_mount_attributes(int tree_fd, uint64_t attributes)
{
    struct mount_attr attr = {.attr_set = attributes};
    return (int)neg_errno(
        syscall(SYS_mount_setattr, tree_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)));
}

static int has_capability(int capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2];

    if (syscall(SYS_capget, &header, caps) < 0)
        return -errno;
    return (caps[capability / 32].effective & CAP_TO_MASK(capability)) != 0;
}

static int die_with_parent(struct err *e)
{
    /* Not dumpable: nobody traces it, and its /proc entries belong to root. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ||
        prctl(PR_SET_DUMPABLE, SANITIZED, 0, 0, 0) < 0)
        return err_errno(e, -errno, "set process attributes");
    return 0;
}

/* An empty file system nobody can write to. */
static int empty_tree(void)
{
    _close_ int fs_fd = (int)neg_errno(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
    if (fs_fd < 0)
        return fs_fd;
    if (syscall(SYS_fsconfig, fs_fd, FSCONFIG_SET_STRING, "size", "4096", 0) < 0 ||
        syscall(SYS_fsconfig, fs_fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    return (int)neg_errno(
        syscall(SYS_fsmount, fs_fd, FSMOUNT_CLOEXEC,
                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
}

/* The mount that becomes the root, attached nowhere yet. Has to come before unshare(2): a mount can
 * only be cloned in the namespace it is in. */
static int make_root_tree(const struct confine *c, struct err *e)
{
    if (c->target_fd < 0) {
        int fd = empty_tree();
        return fd < 0 ? err_errno(e, fd, "make an empty root") : fd;
    }
    _close_ int fd = open_tree_clone(c->target_fd);
    if (fd < 0)
        return err_errno(e, fd, "clone the mount of the target directory");
    int r = set_mount_attributes(fd, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (r < 0)
        return err_errno(e, r, "restrict the mount of the target directory");
    return TAKE_FD(fd);
}

/* Each parent becomes the root of a read-only mount of its own: ".." leads nowhere. */
static int make_parent_trees(const struct confine *c, struct err *e)
{
    for (size_t i = 0; i < c->n_parents; i++) {
        _close_ int fd = open_tree_clone(c->parent_fds[i]);
        int r = fd < 0 ? fd
                       : set_mount_attributes(fd, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                      MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        if (r < 0)
            return err_errno(e, r, "clone the mount of a parent directory");
        if (dup3(fd, c->parent_fds[i], O_CLOEXEC) < 0)
            return err_errno(e, -errno, "replace the descriptor of a parent directory");
    }
    return 0;
}

static int enter_root(int tree_fd, struct err *e)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return err_errno(e, -errno, "make mounts private");
    if (syscall(SYS_move_mount, tree_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return err_errno(e, -errno, "attach the target directory");
    if (fchdir(tree_fd) < 0)
        return err_errno(e, -errno, "enter the target directory");
    if (syscall(SYS_pivot_root, ".", ".") == 0) {
        if (umount2(".", MNT_DETACH) < 0)
            return err_errno(e, -errno, "detach the old root");
    } else if (errno != EINVAL || chroot(".") < 0) {
        /* EINVAL: the old root is the kernel's first one, which cannot be pivoted. Out of this
         * chroot leads no descriptor and, later on, no capability. */
        return err_errno(e, -errno, "make the target directory the root");
    }
    if (chdir("/") < 0)
        return err_errno(e, -errno, "enter the new root");
    return 0;
}

static int reopen_target(int target_fd, struct err *e)
{
    _close_ int fd = neg_errno(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0)
        return err_errno(e, fd, "open the new root");
    if (dup3(fd, target_fd, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "replace the descriptor of the target directory");
    return 0;
}

/* The parent of a pid namespace's first process does nothing but hand on how that ended. */
static _noreturn_ void wait_and_exit(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            _exit(1);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static int isolate(const struct confine *c, struct err *e)
{
    _close_ int tree_fd = make_root_tree(c, e);
    if (tree_fd < 0)
        return tree_fd;
    int r = make_parent_trees(c, e);
    if (r < 0)
        return r;
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
                CLONE_NEWPID) < 0)
        return err_errno(e, -errno, "enter new namespaces");
    r = enter_root(tree_fd, e);
    if (r < 0 || (c->target_fd >= 0 && (r = reopen_target(c->target_fd, e)) < 0))
        return r;

    pid_t child = fork();
    if (child < 0)
        return err_errno(e, -errno, "start the process of the job");
    if (child > 0)
        wait_and_exit(child);
    return 0;
}

static int drop_user(struct err *e)
{
    /* Capabilities that are to be kept outlive the change of user only with this. */
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setgroups, 0, NULL) < 0 ||
        syscall(SYS_setresgid, NOBODY, NOBODY, NOBODY) < 0 ||
        syscall(SYS_setresuid, NOBODY, NOBODY, NOBODY) < 0)
        return err_errno(e, -errno, "become nobody");
    return 0;
}

static int limit_capabilities(const struct confine *c, struct err *e)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2] = {{0}};
    uint64_t keep = 0;

    if (c->needs_owner)
        keep |= UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_DAC_OVERRIDE |
                UINT64_C(1) << CAP_FOWNER | UINT64_C(1) << CAP_FSETID | UINT64_C(1) << CAP_MKNOD |
                UINT64_C(1) << CAP_SETFCAP;
    if (c->reads_parents)
        keep |= UINT64_C(1) << CAP_DAC_READ_SEARCH;
    if (c->trusted_xattrs)
        keep |= UINT64_C(1) << CAP_SYS_ADMIN;

    for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
        if (!(keep >> i & 1) && prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0)
            return err_errno(e, -errno, "drop a capability from the bounding set");
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return err_errno(e, -errno, "clear ambient capabilities");
    if (!c->needs_owner && drop_user(e) < 0)
        return ERR_RETURN;
    caps[0].effective = caps[0].permitted = (uint32_t)keep;
    if (syscall(SYS_capset, &header, caps) < 0)
        return err_errno(e, -errno, "drop capabilities");
    return 0;
}

static int set_limit(int resource, uint64_t value, struct err *e)
{
    struct rlimit limit;

    if (getrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return err_errno(e, -errno, "read a resource limit");
    limit.rlim_max = MIN_OF(limit.rlim_max, (rlim_t)value);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit((__rlimit_resource_t)resource, &limit) < 0)
        return err_errno(e, -errno, "set a resource limit");
    return 0;
}

static int set_limits(const struct confine *c, struct err *e)
{
    int r;

    /* The shadow memory of a sanitized build has no bounds that would make sense. */
    if (!SANITIZED && (r = set_limit(RLIMIT_AS, c->address_space_bytes, e)) < 0)
        return r;
    if ((r = set_limit(RLIMIT_FSIZE, c->file_bytes, e)) < 0 ||
        (r = set_limit(RLIMIT_CPU, c->cpu_seconds, e)) < 0 ||
        (r = set_limit(RLIMIT_NOFILE, 64 + c->n_parents + c->open_files, e)) < 0 ||
        (r = set_limit(RLIMIT_CORE, 0, e)) < 0)
        return r;
    /* Too large a file and a reader that went away are errors of the call, not the end. */
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return err_errno(e, -errno, "ignore a signal");
    return 0;
}

int confine_apply(const struct confine *c, struct err *e)
{
    int r = die_with_parent(e);
    if (r < 0)
        return r;
    int privileged = has_capability(CAP_SYS_ADMIN);
    if (privileged < 0)
        return err_errno(e, privileged, "read capabilities");
    if (privileged && ((r = isolate(c, e)) < 0 || (r = limit_capabilities(c, e)) < 0))
        return r;
    /* Once more: neither survives fork(2) or a change of user. */
    if ((r = die_with_parent(e)) < 0)
        return r;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_errno(e, -errno, "set no_new_privs");
    if ((r = confine_landlock(c, e)) < 0 || (r = set_limits(c, e)) < 0)
        return r;
    return confine_seccomp(e);
}

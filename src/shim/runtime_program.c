/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/runtime_program.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/fs.h"
#include "base/str.h"

void runtime_program_done(struct runtime_program *p)
{
    close_fd(&p->fd);
}

static bool is_same(const struct runtime_program *p, const struct stat *st)
{
    return p->fd >= 0 && p->device == st->st_dev && p->inode == st->st_ino &&
           p->changed.tv_sec == st->st_ctim.tv_sec && p->changed.tv_nsec == st->st_ctim.tv_nsec;
}

static bool is_crun(const char *path)
{
    const char *slash = strrchr(path, '/');
    return str_after_prefix(slash ? slash + 1 : path, "crun") != NULL;
}

static bool is_elf(int fd)
{
    char magic[SELFMAG];

    return fs_read_all(fd, magic, sizeof(magic)) == SELFMAG && memcmp(magic, ELFMAG, SELFMAG) == 0;
}

/* The C library's wrappers are not there in all versions, or clash with the kernel's header. */
static int mount_read_only(int fd)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    _close_ int tree_fd = (int)neg_errno(
        syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));

    if (tree_fd < 0)
        return tree_fd;
    if (syscall(SYS_mount_setattr, tree_fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return -errno;
    return TAKE_FD(tree_fd);
}

int runtime_program_fd(struct runtime_program *p, const char *path)
{
    struct stat st;

    if (!is_crun(path) || stat(path, &st) < 0)
        return -EBADF;
    if (is_same(p, &st))
        return p->fd;
    runtime_program_done(p);
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !is_elf(fd))
        return -EBADF;
    int tree_fd = mount_read_only(fd);
    if (tree_fd < 0)
        return -EBADF;
    *p = (struct runtime_program){tree_fd, st.st_dev, st.st_ino, st.st_ctim};
    return tree_fd;
}

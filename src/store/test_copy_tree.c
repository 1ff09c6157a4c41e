/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/fs.h"
#include "store/copy_tree.h"

static char dir[32];
static int dir_fd = -EBADF;

static int setup(_unused_ void **state)
{
    snprintf(dir, sizeof(dir), "/tmp/test-copy-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return mkdirat(dir_fd, "from", 0750) | mkdirat(dir_fd, "to", 0700);
}

static int teardown(_unused_ void **state)
{
    close_fd(&dir_fd);
    return fs_rm_rf(AT_FDCWD, dir);
}

static void make_file(const char *path, const char *text, mode_t mode)
{
    int fd = openat(dir_fd, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static struct stat stat_of(const char *path)
{
    struct stat st;

    if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        fail_msg("%s is missing", path);
    return st;
}

static void everything(void **state)
{
    struct timespec times[] = {{.tv_sec = 1000}, {.tv_sec = 2000, .tv_nsec = 5}};
    char path[96], value[8];
    int fd;

    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdirat(dir_fd, "from/d", 0711), 0);
    make_file("from/d/a", "hello", 04755);
    assert_int_equal(linkat(dir_fd, "from/d/a", dir_fd, "from/b", 0), 0);
    assert_int_equal(symlinkat("d/a", dir_fd, "from/link"), 0);
    assert_int_equal(mknodat(dir_fd, "from/null", S_IFCHR | 0666, makedev(1, 3)), 0);
    assert_int_equal(mknodat(dir_fd, "from/fifo", S_IFIFO | 0600, 0), 0);
    assert_int_equal(fchownat(dir_fd, "from/link", 5, 6, AT_SYMLINK_NOFOLLOW), 0);
    snprintf(path, sizeof(path), "%s/from/d/a", dir);
    assert_int_equal(setxattr(path, "trusted.test", "v", 1, 0), 0);
    fd = openat(dir_fd, "from/sparse", O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    assert_int_equal(ftruncate(fd, 64 << 20), 0);
    assert_int_equal(pwrite(fd, "x", 1, 32 << 20), 1);
    close(fd);
    assert_int_equal(utimensat(dir_fd, "from/d", times, 0), 0);

    assert_int_equal(copy_tree(dir_fd, "from", dir_fd, "to"), 0);

    assert_int_equal(stat_of("to").st_mode & 07777, 0750);
    assert_int_equal(stat_of("to/d").st_mode & 07777, 0711);
    assert_int_equal(stat_of("to/d").st_mtim.tv_sec, 2000);
    assert_int_equal(stat_of("to/d").st_mtim.tv_nsec, 5);
    assert_int_equal(stat_of("to/d/a").st_mode & 07777, 04755);
    assert_int_equal(stat_of("to/d/a").st_ino, stat_of("to/b").st_ino);
    assert_int_equal(stat_of("to/b").st_nlink, 2);
    assert_int_equal(stat_of("to/link").st_gid, 6);
    assert_int_equal(stat_of("to/null").st_rdev, makedev(1, 3));
    assert_int_equal(stat_of("to/null").st_mode & 07777, stat_of("from/null").st_mode & 07777);
    assert_true(S_ISFIFO(stat_of("to/fifo").st_mode));
    assert_int_equal(stat_of("to/sparse").st_size, 64 << 20);
    assert_true(stat_of("to/sparse").st_blocks < 2048);
    snprintf(path, sizeof(path), "%s/to/d/a", dir);
    assert_int_equal(getxattr(path, "trusted.test", value, sizeof(value)), 1);
}

/* Deeper than a path may be long. */
static void deep(void **state)
{
    char name[65];
    int fd = openat(dir_fd, "from", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    memset(name, 'd', 64);
    name[64] = '\0';
    for (int i = 0; i < 200; i++) {
        assert_int_equal(mkdirat(fd, name, 0755), 0);
        int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    close(openat(fd, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    assert_int_equal(linkat(fd, "file", fd, "link", 0), 0);
    close(fd);

    assert_int_equal(copy_tree(dir_fd, "from", dir_fd, "to"), 0);
    fd = openat(dir_fd, "to", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 200; i++) {
        int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    assert_int_equal(faccessat(fd, "link", F_OK, 0), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything, setup, teardown),
        cmocka_unit_test_setup_teardown(deep, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

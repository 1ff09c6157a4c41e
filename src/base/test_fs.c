/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/fs.h"

static char dir[64];
static int dir_fd = -EBADF;

static int setup(_unused_ void **state)
{
    snprintf(dir, sizeof(dir), "/tmp/test-fs-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0 ? -1 : 0;
}

static int teardown(_unused_ void **state)
{
    close_fd(&dir_fd);
    int r = fs_rm_rf(AT_FDCWD, dir);
    return r == 0 && !fs_exists(AT_FDCWD, dir) ? 0 : -1;
}

static mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st.st_mode & 07777;
}

static void make(const char *path)
{
    assert_int_equal(fs_write_file_atomic(dir_fd, path, "bytes", 5, 0644, false), 0);
}

static void open_beneath_stays_below(_unused_ void **state)
{
    int fd;

    assert_int_equal(fs_mkdir_p(dir_fd, "root/etc", 0755), 0);
    make("outside");
    make("root/etc/inside");
    assert_int_equal(symlinkat("/etc/inside", dir_fd, "root/absolute"), 0);
    assert_int_equal(symlinkat("../../../etc/inside", dir_fd, "root/dots"), 0);
    assert_int_equal(symlinkat("../outside", dir_fd, "root/escape"), 0);
    assert_int_equal(symlinkat("loop", dir_fd, "root/loop"), 0);
    _close_ int root = openat(dir_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);

    static const char *const inside[] = {"etc/inside", "/etc/inside", "absolute", "dots",
                                         "../../etc/inside"};
    for (size_t i = 0; i < ARRAY_SIZE(inside); i++) {
        fd = fs_open_beneath(root, inside[i], O_RDONLY, 0);
        assert_true(fd >= 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        close(fd);
    }
    assert_int_equal(fs_open_beneath(root, "escape", O_RDONLY, 0), -ENOENT);
    assert_int_equal(fs_open_beneath(root, "../outside", O_RDONLY, 0), -ENOENT);
    assert_int_equal(fs_open_beneath(root, "loop", O_RDONLY, 0), -ELOOP);
    fd = fs_open_beneath(root, "/new", O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_true(fs_exists(dir_fd, "root/new"));
    /* Links of /proc lead out of any root. */
    _close_ int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(fs_open_beneath(proc, "self/root/etc/passwd", O_RDONLY, 0), -ELOOP);
}

static void mkdir_p(_unused_ void **state)
{
    mode_t before = umask(077);
    assert_int_equal(fs_mkdir_p(dir_fd, "a//b/c/", 0755), 0);
    umask(before);
    assert_int_equal(mode_of("a"), 0755);
    assert_int_equal(mode_of("a/b/c"), 0755);
    assert_int_equal(fs_mkdir_p(dir_fd, "a/b", 0700), 0);
    assert_int_equal(mode_of("a/b"), 0755);
    make("file");
    assert_int_equal(fs_mkdir_p(dir_fd, "file", 0700), -ENOTDIR);
    assert_int_equal(fs_mkdir_p(dir_fd, "file/x", 0700), -ENOTDIR);
    assert_int_equal(fs_mkdir_p(dir_fd, "", 0700), -ENOENT);
    assert_int_equal(fs_mkdir_p(AT_FDCWD, "/tmp", 0700), 0);
}

static void private_dir(_unused_ void **state)
{
    char path[128];
    int fd = -EBADF;

    snprintf(path, sizeof(path), "%s/x/y/private/", dir);
    assert_int_equal(fs_open_private_dir(path, 0700, &fd), 0);
    close(fd);
    assert_int_equal(mode_of("x"), 0711);
    assert_int_equal(mode_of("x/y/private"), 0700);
    assert_int_equal(fchmodat(dir_fd, "x/y/private", 0777, 0), 0);
    assert_int_equal(fs_open_private_dir(path, 0700, &fd), 0);
    close(fd);
    assert_int_equal(mode_of("x/y/private"), 0700);

    assert_int_equal(symlinkat("/tmp", dir_fd, "link"), 0);
    snprintf(path, sizeof(path), "%s/link", dir);
    fd = -EBADF;
    assert_true(fs_open_private_dir(path, 0700, &fd) < 0);
    if (geteuid() == 0) {
        assert_int_equal(fs_mkdir_p(dir_fd, "theirs", 0700), 0);
        assert_int_equal(fchownat(dir_fd, "theirs", 12345, 12345, 0), 0);
        snprintf(path, sizeof(path), "%s/theirs", dir);
        assert_int_equal(fs_open_private_dir(path, 0700, &fd), -EPERM);
    }
    assert_int_equal(fd, -EBADF);
}

static void locks_end_with_their_fd(_unused_ void **state)
{
    _close_ int first = open(dir, O_DIRECTORY | O_CLOEXEC);
    _close_ int second = open(dir, O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(fs_lock(first, 0), 0);
    assert_int_equal(fs_lock(first, 0), 0);
    assert_int_equal(fs_lock(second, 5), -ETIMEDOUT);
    close_fd(&first);
    assert_int_equal(fs_lock(second, 0), 0);
    assert_int_equal(fs_lock(-EBADF, 0), -EBADF);
}

static void files_are_read(_unused_ void **state)
{
    char *text = NULL;
    size_t len = 0;

    make("f");
    assert_int_equal(fs_read_file(dir_fd, "f", 5, &text, &len), 0);
    assert_int_equal(len, 5);
    assert_string_equal(text, "bytes");
    free(TAKE(text));
    assert_int_equal(fs_read_file(dir_fd, "f", 4, &text, &len), -EFBIG);
    assert_int_equal(fs_read_file(dir_fd, "none", 4, &text, &len), -ENOENT);
    assert_int_equal(fs_read_file(dir_fd, ".", 4, &text, &len), -EISDIR);
    assert_int_equal(mkfifoat(dir_fd, "fifo", 0600), 0);
    assert_int_equal(fs_read_file(dir_fd, "fifo", 4, &text, &len), -EINVAL);
    assert_null(text);
    /* A size of 0 that is not true, and a file that is empty. */
    assert_int_equal(fs_read_file(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &text, &len), 0);
    assert_true(len > 10 && text[len] == 0);
    free(TAKE(text));
    assert_int_equal(fs_read_file(AT_FDCWD, "/proc/self/mountinfo", 10, &text, &len), -EFBIG);
    assert_int_equal(fs_write_file_atomic(dir_fd, "empty", "", 0, 0600, true), 0);
    assert_int_equal(fs_read_file(dir_fd, "empty", 0, &text, &len), 0);
    assert_int_equal(len, 0);
    assert_string_equal(text, "");
    free(text);
}

static void files_are_replaced(_unused_ void **state)
{
    _free_ char *text = NULL;
    size_t len;

    mode_t before = umask(077);
    make("f");
    umask(before);
    assert_int_equal(mode_of("f"), 0644);
    assert_int_equal(fs_write_file_atomic(dir_fd, "f", "other", 5, 0600, true), 0);
    assert_int_equal(mode_of("f"), 0600);
    assert_int_equal(fs_read_file(dir_fd, "f", 100, &text, &len), 0);
    assert_string_equal(text, "other");
    /* Nothing is left of a failure. */
    assert_int_equal(fs_mkdir_p(dir_fd, "d/full", 0700), 0);
    make("d/full/x");
    assert_int_equal(fs_write_file_atomic(dir_fd, "d/full", "x", 1, 0600, false), -EISDIR);
    assert_int_equal(unlinkat(dir_fd, "d/full/x", 0), 0);
    assert_int_equal(unlinkat(dir_fd, "d/full", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(dir_fd, "d", AT_REMOVEDIR), 0);
}

static void rm_rf_removes(_unused_ void **state)
{
    char name[96];

    assert_int_equal(fs_rm_rf(dir_fd, "none"), 0);
    assert_int_equal(fs_rm_rf(dir_fd, "none/none"), 0);
    assert_int_equal(fs_rm_rf(dir_fd, "."), -EINVAL);
    assert_int_equal(fs_rm_rf(dir_fd, "x/.."), -EINVAL);
    assert_int_equal(fs_rm_rf(dir_fd, "/"), -EINVAL);
    assert_int_equal(fs_rm_rf(dir_fd, ""), -EINVAL);
    make("file");
    assert_int_equal(fs_rm_rf(dir_fd, "file"), 0);
    assert_false(fs_exists(dir_fd, "file"));

    /* Wide: more names than fit in one read, each with something in it. */
    assert_int_equal(fs_mkdir_p(dir_fd, "tree", 0700), 0);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "tree/a-rather-long-name-of-a-directory-%d/\n\xff%d", i, i);
        assert_int_equal(fs_mkdir_p(dir_fd, name, 0500), 0);
    }
    /* Links are removed, not followed. */
    make("kept");
    assert_int_equal(fs_mkdir_p(dir_fd, "kept-dir/x", 0700), 0);
    assert_int_equal(symlinkat("../kept", dir_fd, "tree/to-file"), 0);
    assert_int_equal(symlinkat("../kept-dir", dir_fd, "tree/to-dir"), 0);
    assert_int_equal(fs_rm_rf(dir_fd, "tree//"), 0);
    assert_false(fs_exists(dir_fd, "tree"));
    assert_true(fs_exists(dir_fd, "kept"));
    assert_true(fs_exists(dir_fd, "kept-dir/x"));
    assert_int_equal(symlinkat("kept-dir", dir_fd, "link"), 0);
    assert_int_equal(fs_rm_rf(dir_fd, "link"), 0);
    assert_true(fs_exists(dir_fd, "kept-dir/x"));
}

static void rm_rf_goes_deep(_unused_ void **state)
{
    static const char name[] = "a-directory-name-long-enough-to-pass-any-path-limit-soon";
    _close_ int fd = dup(dir_fd);

    /* 2,000 levels: 114 KB of path. */
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(mkdirat(fd, name, 0700), 0);
        int next = openat(fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    int64_t bytes, inodes;
    assert_int_equal(fs_usage(dir_fd, name, &bytes, &inodes), 0);
    assert_int_equal(inodes, 2000);
    assert_int_equal(fs_rm_rf(dir_fd, name), 0);
    assert_false(fs_exists(dir_fd, name));
}

/* In a child with mounts of its own. Exit code 0: as it should be; 77: mounting is not possible
 * here. */
static int mounts_in_child(void)
{
    char path[128];
    int64_t bytes, inodes;

    if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    /* The fd from before leads into the mounts from before. */
    dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    snprintf(path, sizeof(path), "%s/tree/sub/mounted", dir);
    if (mount("tmpfs", path, "tmpfs", 0, NULL) < 0)
        return 77;
    if (fs_write_file_atomic(dir_fd, "tree/sub/mounted/precious", "x", 1, 0600, false) < 0)
        return 1;
    if (fs_usage(dir_fd, "tree", &bytes, &inodes) < 0 || inodes != 4)
        return 2; /* tree, sub, mounted, file: not what is on the mount */
    if (fs_rm_rf(dir_fd, "tree") != -EXDEV || fs_rm_rf(dir_fd, "tree/sub/mounted") != -EXDEV)
        return 3;
    if (!fs_exists(dir_fd, "tree/sub/mounted/precious"))
        return 4;
    /* A bind mount of the same filesystem has the same device number. */
    if (umount(path) < 0 || mount("/tmp", path, NULL, MS_BIND, NULL) < 0)
        return 5;
    if (fs_rm_rf(dir_fd, "tree") != -EXDEV)
        return 6;
    /* A file that is a mount point. */
    if (umount(path) < 0)
        return 7;
    if (fs_write_file_atomic(dir_fd, "tree/file", "x", 1, 0600, false) < 0)
        return 8;
    snprintf(path, sizeof(path), "%s/tree/file", dir);
    if (mount("/etc/passwd", path, NULL, MS_BIND, NULL) < 0 || fs_rm_rf(dir_fd, "tree") != -EXDEV)
        return 9;
    if (umount(path) < 0 || fs_rm_rf(dir_fd, "tree") < 0)
        return 10;
    return 0;
}

static void rm_rf_stops_at_mounts(_unused_ void **state)
{
    int status;

    assert_int_equal(fs_mkdir_p(dir_fd, "tree/sub/mounted", 0700), 0);
    make("tree/sub/file");
    pid_t pid = fork();
    if (pid == 0)
        _exit(mounts_in_child());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_false(fs_exists(dir_fd, "tree"));
}

static void usage_counts_links_once(_unused_ void **state)
{
    int64_t bytes = 0, inodes = 0;
    char block[8192] = "x";
    char name[16];
    struct stat st;

    assert_int_equal(fs_mkdir_p(dir_fd, "u/v", 0700), 0);
    assert_int_equal(fs_write_file_atomic(dir_fd, "u/f", block, sizeof(block), 0600, true), 0);
    assert_int_equal(fstatat(dir_fd, "u/f", &st, 0), 0);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "u/v/%d", i);
        assert_int_equal(linkat(dir_fd, "u/f", dir_fd, name, 0), 0);
    }
    assert_int_equal(fs_usage(dir_fd, "u", &bytes, &inodes), 0);
    assert_int_equal(inodes, 3);
    assert_true(bytes >= (int64_t)st.st_blocks * 512 && bytes < 100000);
    assert_int_equal(fs_usage(dir_fd, "u/f", &bytes, &inodes), 0);
    assert_int_equal(inodes, 1);
    assert_int_equal(fs_usage(dir_fd, "none", &bytes, &inodes), -ENOENT);
}

static void paths_are_cleaned(_unused_ void **state)
{
    static const struct {
        const char *path, *clean;
    } cases[] = {
        {"", "."},
        {"/", "/"},
        {"//", "/"},
        {".", "."},
        {"a", "a"},
        {"a/", "a"},
        {"/a/./b//c/", "/a/b/c"},
        {"a/../b", "b"},
        {"a/b/../..", "."},
        {"..", ".."},
        {"../..", "../.."},
        {"../a/../../b", "../../b"},
        {"/..", "/"},
        {"/../a", "/a"},
        {"/a/../..", "/"},
        {"a/../..", ".."},
        {"./a/.", "a"},
        {"...", "..."},
        {"/a/..b", "/a/..b"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _free_ char *clean = fs_clean_path(cases[i].path);
        assert_string_equal(clean, cases[i].clean);
    }
    _free_ char *joined = fs_join("/a", "b");
    assert_string_equal(joined, "/a/b");
}

static void flags_are_set(_unused_ void **state)
{
    int p[2];

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_int_equal(fs_set_nonblock(p[0], true), 0);
    assert_true(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(fs_set_nonblock(p[0], false), 0);
    assert_false(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    close(p[0]);
    close(p[1]);
    assert_int_equal(fs_set_nonblock(p[0], true), -EBADF);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(open_beneath_stays_below),
        T(mkdir_p),
        T(private_dir),
        T(locks_end_with_their_fd),
        T(files_are_read),
        T(files_are_replaced),
        T(rm_rf_removes),
        T(rm_rf_goes_deep),
        T(rm_rf_stops_at_mounts),
        T(usage_counts_links_once),
        T(paths_are_cleaned),
        T(flags_are_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/fs.h"
#include "base/str.h"
#include "oci/layers.h"

static char dir[] = "/tmp/test-layers-XXXXXX";

static void put(const char *layer, const char *path, const char *text)
{
    _free_ char *whole = str_printf("%s/%s/%s", dir, layer, path);
    _free_ char *parent = strdup(whole);

    *strrchr(parent, '/') = '\0';
    assert_int_equal(fs_mkdir_p(AT_FDCWD, parent, 0755), 0);
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, whole, text, strlen(text), 0644, false), 0);
}

static void put_link(const char *layer, const char *path, const char *target)
{
    _free_ char *whole = str_printf("%s/%s/%s", dir, layer, path);

    assert_int_equal(symlink(target, whole), 0);
}

/* What stands in the file, or the negative errno as text. */
static void check(const struct layers *l, const char *path, const char *expected)
{
    _close_ int fd = -EBADF;
    char text[64] = "";
    int r = layers_open_file(l, path, &fd);

    if (r < 0)
        snprintf(text, sizeof(text), "%s", strerrorname_np(-r));
    else
        assert_true(fs_read_all(fd, text, sizeof(text) - 1) >= 0);
    assert_string_equal(text, expected);
}

static void test_overlay(void **state)
{
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    _cleanup_(layers_done) struct layers l = {};
    const char *made = mkdtemp(dir);
    _free_ char *lower = str_printf("lowerdir=%s/b:%s/a", dir, dir);
    _free_ char *upper = str_printf("upperdir=%s/up", dir);
    _free_ char *whiteout = str_printf("%s/b/etc/gone", dir);
    char *options[] = {upper, lower, (char *)"index=off", NULL};

    assert_non_null(made);
    put("a", "etc/passwd", "old");
    put("a", "etc/group", "from a");
    put("a", "etc/gone", "x");
    put("a", "usr/lib/passwd", "far away");
    put("b", "etc/passwd", "new");
    put("up", "tmp/x", "x");
    put_link("b", "etc/absolute", "/usr/lib/passwd");
    put_link("b", "etc/relative", "../usr/lib/../lib/passwd");
    put_link("b", "etc/escape", "../../../../../../etc/group");
    put_link("b", "etc/loop", "loop");
    put_link("b", "lib", "usr/lib");
    if (mknod(whiteout, S_IFCHR | 0600, makedev(0, 0)) < 0)
        skip(); /* needs root */
    assert_int_equal(mount_list_add(&mounts, "overlay", "overlay", NULL, options), 0);
    assert_int_equal(layers_open(&mounts, &l), 0);
    assert_int_equal(l.n, 3);
    check(&l, "etc/passwd", "new");
    check(&l, "/etc/../etc//group", "from a");
    check(&l, "etc/gone", "ENOENT");
    check(&l, "etc/none", "ENOENT");
    check(&l, "etc/absolute", "far away");
    check(&l, "etc/relative", "far away");
    check(&l, "lib/passwd", "far away");
    check(&l, "etc/escape", "from a");
    check(&l, "etc/loop", "ELOOP");
    check(&l, "etc", "EISDIR");
    check(&l, "etc/passwd/x", "ENOTDIR");
    check(&l, "", "EISDIR");
}

static void test_special_files(void **state)
{
    _cleanup_(layers_done) struct layers l = {};
    _free_ char *fifo = str_printf("%s/f/etc/passwd", dir);
    _free_ char *root = str_printf("%s/f", dir);

    put("f", "etc/x", "x");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(layers_from_dir(open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), &l), 0);
    check(&l, "etc/passwd", "EINVAL");
    check(&l, "etc/x", "x");
}

static void test_other_mounts(void **state)
{
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    struct layers l = {};
    char *none[] = {NULL};

    assert_int_equal(layers_open(&mounts, &l), -EOPNOTSUPP);
    assert_int_equal(mount_list_add(&mounts, "btrfs", "/dev/x", NULL, none), 0);
    assert_int_equal(layers_open(&mounts, &l), -EOPNOTSUPP);
}

static int clean_up(void **state)
{
    return fs_rm_rf(AT_FDCWD, dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_special_files),
        cmocka_unit_test(test_other_mounts),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}

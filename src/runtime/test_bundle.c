/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/str.h"
#include "runtime/bundle.h"

static const char spec[] = "{\"ociVersion\":\"1.0.2\",\"root\":{\"path\":\"rootfs\"}}";

struct dirs {
    char base[32];
    char root[48];
    char state[48];
};

static int setup(void **state)
{
    struct dirs *d = calloc(1, sizeof(*d));

    snprintf(d->base, sizeof(d->base), "/tmp/wherry-test-XXXXXX");
    assert_non_null(mkdtemp(d->base));
    snprintf(d->root, sizeof(d->root), "%s/root", d->base);
    snprintf(d->state, sizeof(d->state), "%s/state", d->base);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct dirs *d = *state;

    assert_int_equal(fs_rm_rf(AT_FDCWD, d->base), 0);
    free(d);
    return 0;
}

static void create(struct dirs *d, const char *id, struct bundle *b)
{
    struct err e = ERR_INIT;

    assert_int_equal(
        bundle_create(d->root, d->state, "ns", id, spec, strlen(spec), "/bin/shim", b, &e), 0);
}

static mode_t mode_of(const struct bundle *b, const char *name)
{
    struct stat st;

    assert_int_equal(fstatat(b->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st.st_mode & 07777;
}

static void test_holds_what_a_shim_needs(void **state)
{
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;
    _free_ char *text = NULL;
    size_t len = 0;

    create(*state, "c1", &b);
    assert_int_equal(mode_of(&b, "."), 0700);
    assert_int_equal(mode_of(&b, "rootfs"), 0711);
    assert_int_equal(mode_of(&b, "shim-binary-path"), 0600);
    assert_int_equal(mode_of(&b, "log"), 0700);
    assert_int_equal(fs_read_file(b.dir_fd, "config.json", 4096, &text, &len), 0);
    assert_string_equal(text, spec);
    _free_ char *binary = bundle_read_shim_binary(&b);
    assert_string_equal(binary, "/bin/shim");
    int fd = -EBADF;
    assert_int_equal(bundle_open_log(&b, &fd), 0);
    close(fd);
}

static void test_same_id_twice(void **state)
{
    struct dirs *d = *state;
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;
    struct bundle again = BUNDLE_NULL;
    struct err e = ERR_INIT;

    create(d, "c1", &b);
    assert_true(bundle_create(d->root, d->state, "ns", "c1", spec, strlen(spec), "/x", &again, &e) <
                0);
    assert_int_equal(e.code, ERR_ALREADY_EXISTS);
    /* The first one is whole. */
    assert_true(fs_exists(b.dir_fd, "config.json"));
}

/* Whoever could write there could put a bundle of their own in the place of one. */
static void test_directories_above_are_tightened(void **state)
{
    struct dirs *d = *state;
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;
    struct bundle other = BUNDLE_NULL;
    struct err e = ERR_INIT;
    struct stat st;

    assert_int_equal(fs_mkdir_p(AT_FDCWD, d->state, 0711), 0);
    _free_ char *of_runtime = fs_join(d->state, BUNDLE_V2);
    _free_ char *of_namespace = fs_join(of_runtime, "ns");
    assert_int_equal(fs_mkdir_p(AT_FDCWD, of_namespace, 0777), 0);
    create(d, "c1", &b);
    assert_int_equal(stat(of_runtime, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
    assert_int_equal(stat(of_namespace, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0711);

    /* A link is not followed. */
    _free_ char *link = fs_join(of_runtime, "other");
    assert_int_equal(symlink(d->base, link), 0);
    assert_true(
        bundle_create(d->root, d->state, "other", "c1", spec, strlen(spec), "/x", &other, &e) < 0);
    _free_ char *followed = fs_join(d->base, "c1");
    assert_int_equal(access(followed, F_OK), -1);
}

static void test_bad_spec_leaves_nothing(void **state)
{
    struct dirs *d = *state;
    struct bundle b = BUNDLE_NULL;
    struct err e = ERR_INIT;

    assert_true(bundle_create(d->root, d->state, "ns", "c1", "{", 1, "/x", &b, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_true(bundle_load(d->root, d->state, BUNDLE_V2, "ns", "c1", &b, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void test_bootstrap(void **state)
{
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;
    _free_ char *address = NULL;
    struct err e = ERR_INIT;
    int version = 0;

    create(*state, "c1", &b);
    assert_true(bundle_read_bootstrap(&b, &address, &version, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(bundle_write_bootstrap(&b, "unix:///s/1", 3, &e), 0);
    assert_int_equal(bundle_read_bootstrap(&b, &address, &version, &e), 0);
    assert_string_equal(address, "unix:///s/1");
    assert_int_equal(version, 3);

    /* What another daemon left: a bare address; and an empty file is as good as none. */
    free(TAKE(address));
    assert_int_equal(fs_write_file_atomic(b.dir_fd, "bootstrap.json", "", 0, 0600, false), 0);
    assert_int_equal(bundle_read_bootstrap(&b, &address, &version, &e), 0);
    assert_string_equal(address, "unix:///s/1");
    assert_int_equal(version, 2);
}

static void count(void *userdata, const char *ns, const char *id)
{
    assert_string_equal(ns, "ns");
    ++*(int *)userdata;
}

static void test_walk_and_remove(void **state)
{
    struct dirs *d = *state;
    struct bundle one = BUNDLE_NULL, two = BUNDLE_NULL;
    struct err e = ERR_INIT;
    int n = 0;

    create(d, "one", &one);
    create(d, "two", &two);
    _free_ char *hidden = str_printf("%s/io.containerd.runtime.v2.task/ns/.three", d->state);
    assert_int_equal(mkdir(hidden, 0700), 0);
    assert_int_equal(bundle_walk(d->state, BUNDLE_V2, count, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_false(fs_exists(AT_FDCWD, hidden));

    assert_int_equal(bundle_remove(&one, &e), 0);
    assert_false(fs_exists(AT_FDCWD, one.path));
    assert_false(fs_exists(AT_FDCWD, one.work_path));

    /* A work directory whose bundle went with a reboot. */
    assert_int_equal(fs_rm_rf(AT_FDCWD, two.path), 0);
    n = 0;
    bundle_sweep_work(d->root, d->state, BUNDLE_V2, count, &n);
    assert_int_equal(n, 1);
    assert_false(fs_exists(AT_FDCWD, two.work_path));

    /* And made again, for a cleanup. */
    assert_int_equal(bundle_revive(&two, &e), 0);
    assert_true(fs_exists(AT_FDCWD, two.path));
    assert_int_equal(fs_write_file_atomic(two.dir_fd, "cgroup", "x", 1, 0600, false), 0);
    assert_int_equal(bundle_revive(&two, &e), 0);
    assert_true(fs_exists(two.dir_fd, "cgroup"));
    assert_int_equal(bundle_remove(&two, &e), 0);
    bundle_done(&one);
    bundle_done(&two);
}

/* What a failed unmount would leave in rootfs may be somebody's files. */
static void test_remove_spares_a_full_rootfs(void **state)
{
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;
    struct err e = ERR_INIT;

    create(*state, "c1", &b);
    assert_int_equal(fs_write_file_atomic(b.dir_fd, "rootfs/precious", "x", 1, 0600, false), 0);
    assert_true(bundle_remove(&b, &e) < 0);
    assert_true(fs_exists(b.dir_fd, "rootfs/precious"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_holds_what_a_shim_needs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_id_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directories_above_are_tightened, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_spec_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bootstrap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walk_and_remove, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove_spares_a_full_rootfs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

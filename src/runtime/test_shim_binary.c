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
#include "runtime/shim_binary.h"

struct place {
    char dir[32];
    char own[64];
    char foreign[64];
};

static void make_program(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);

    assert_true(fd >= 0);
    close(fd);
}

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    snprintf(p->dir, sizeof(p->dir), "/tmp/wherry-test-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->own, sizeof(p->own), "%s/own", p->dir);
    snprintf(p->foreign, sizeof(p->foreign), "%s/containerd-shim-kata-v2", p->dir);
    make_program(p->own);
    make_program(p->foreign);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;

    fs_rm_rf(AT_FDCWD, p->dir);
    free(p);
    return 0;
}

static int resolve(struct place *p, const char *runtime, const char *override,
                   struct shim_binary *b, struct err *e)
{
    err_clear(e);
    return shim_binary_resolve(runtime, p->own, override, p->dir, b, e);
}

static void test_names(void **state)
{
    struct place *p = *state;
    struct shim_binary b = {0};
    struct err e = ERR_INIT;

    assert_int_equal(resolve(p, "io.containerd.runc.v2", NULL, &b, &e), 0);
    assert_string_equal(b.path, p->own);
    assert_true(b.is_ours);
    shim_binary_done(&b);
    assert_int_equal(resolve(p, "io.containerd.runc.v2", p->foreign, &b, &e), 0);
    assert_string_equal(b.path, p->foreign);
    assert_false(b.is_ours);
    shim_binary_done(&b);
    assert_int_equal(resolve(p, "io.containerd.kata.v2", NULL, &b, &e), 0);
    assert_string_equal(b.path, p->foreign);
    shim_binary_done(&b);
    assert_int_equal(resolve(p, p->foreign, NULL, &b, &e), 0);
    assert_string_equal(b.path, p->foreign);
    shim_binary_done(&b);
}

static void test_refusals(void **state)
{
    struct place *p = *state;
    struct shim_binary b = {0};
    struct err e = ERR_INIT;
    static const char *const invalid[] = {
        "", "runc", ".v2", "runc.", "a/b.c", "../x.y", "io.cont ainerd.a b.v2"};

    for (size_t i = 0; i < ARRAY_SIZE(invalid); i++) {
        assert_true(resolve(p, invalid[i], NULL, &b, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(e.msg, "invalid runtime name"));
    }
    assert_true(resolve(p, "io.containerd.nothing.v9", NULL, &b, &e) < 0);
    assert_string_equal(e.msg, "runtime \"io.containerd.nothing.v9\" binary not installed "
                               "\"containerd-shim-nothing-v9\": file does not exist");
    assert_int_equal(e.code, ERR_UNKNOWN);
    assert_true(resolve(p, "/no/such/shim", NULL, &b, &e) < 0);
    assert_non_null(str_after_prefix(e.msg, "invalid custom binary path: "));
    assert_true(resolve(p, p->dir, NULL, &b, &e) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

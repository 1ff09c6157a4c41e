/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"
#include "oci/runtime_choice.h"

static char crun[] = "/usr/bin/crun", runc[] = "/usr/sbin/runc";

static void expect(const struct runtime_facts *f, const char *version, const char *path)
{
    struct runtime_choice c = {};
    struct err e = ERR_INIT;

    int r = runtime_choice_make(f, version, &c, &e);
    if (!path) {
        assert_true(r < 0);
        assert_int_equal(e.code, ERR_NOT_FOUND);
        return;
    }
    assert_int_equal(r, 0);
    assert_string_equal(c.path, path);
    assert_non_null(strstr(c.why, path));
    runtime_choice_done(&c);
}

static void test_choice(void **state)
{
    expect(&(struct runtime_facts){.crun = crun, .runc = runc}, "1.0.2-dev", crun);
    expect(&(struct runtime_facts){.crun = crun, .runc = runc}, NULL, crun);
    expect(&(struct runtime_facts){.crun = crun, .runc = runc}, "1.1.0", runc);
    expect(&(struct runtime_facts){.crun = crun, .runc = runc}, "1.01", runc);
    expect(&(struct runtime_facts){.crun = crun}, "1.1.0", crun);
    expect(&(struct runtime_facts){.crun = crun, .runc = runc, .has_split_cgroups = true}, "1.0.0",
           runc);
    expect(&(struct runtime_facts){.crun = crun, .runc = runc, .has_unmounted_cgroups = true},
           "1.0.0", runc);
    expect(&(struct runtime_facts){.runc = runc}, "1.0.0", runc);
    expect(&(struct runtime_facts){}, "1.0.0", NULL);
}

static void write_text(const char *path, const char *text)
{
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644, false), 0);
}

static void test_facts(void **state)
{
    char root[] = "/tmp/test-runtime-choice-XXXXXX";
    struct runtime_facts f = {};

    assert_non_null(mkdtemp(root));
    _free_ char *unified = fs_join(root, "unified");
    _free_ char *controllers = fs_join(unified, "cgroup.controllers");
    _free_ char *program = fs_join(root, "runc");
    assert_int_equal(mkdir(unified, 0755), 0);
    write_text(controllers, "\n");
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, program, "#!", 2, 0755, false), 0);
    _free_ char *of_self = fs_join(root, "cgroup");
    write_text(of_self, "9:name=systemd:/\n0::/\n");
    assert_int_equal(runtime_facts_find(root, root, of_self, &f), 0);
    assert_null(f.crun);
    assert_string_equal(f.runc, program);
    assert_false(f.has_split_cgroups);
    assert_false(f.has_unmounted_cgroups);
    runtime_facts_done(&f);
    write_text(controllers, "hugetlb\n");
    assert_int_equal(runtime_facts_find(root, root, of_self, &f), 0);
    assert_true(f.has_split_cgroups);
    runtime_facts_done(&f);
    /* A directory is there, but no cgroup. */
    _free_ char *hugetlb = fs_join(root, "hugetlb");
    assert_int_equal(mkdir(hugetlb, 0755), 0);
    write_text(of_self, "10:hugetlb:/\n9:name=systemd:/\n0::/\n");
    assert_int_equal(runtime_facts_find(root, root, of_self, &f), 0);
    assert_true(f.has_unmounted_cgroups);
    runtime_facts_done(&f);
    assert_int_equal(fs_rm_rf(AT_FDCWD, root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

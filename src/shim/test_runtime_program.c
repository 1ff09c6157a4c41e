/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "shim/runtime_program.h"

struct place {
    char dir[32];
    char *crun, *runc;
};

static void copy_program(const char *to)
{
    _free_ char *bytes = NULL;
    size_t n;

    assert_int_equal(fs_read_file(AT_FDCWD, "/bin/true", 64 << 20, &bytes, &n), 0);
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, to, bytes, n, 0755, false), 0);
}

static void place_init(struct place *p)
{
    *p = (struct place){.dir = "/tmp/test-program-XXXXXX"};
    assert_non_null(mkdtemp(p->dir));
    p->crun = fs_join(p->dir, "crun");
    p->runc = fs_join(p->dir, "runc");
    copy_program(p->crun);
    copy_program(p->runc);
}

static void place_done(struct place *p)
{
    assert_int_equal(fs_rm_rf(AT_FDCWD, p->dir), 0);
    free(p->crun);
    free(p->runc);
}

/* What crun asks of the file that it runs from, and that it runs. */
static void assert_read_only(int fd)
{
    const char *const argv[] = {"crun", NULL};
    const struct proc_spawn spawn = {.exec_fd = fd, .argv = argv};
    struct statvfs fs;
    int status = -1;

    assert_int_equal(fstatvfs(fd, &fs), 0);
    assert_true(fs.f_flag & ST_RDONLY);
    assert_int_equal(proc_run(&spawn, NULL, 0, 5000, NULL, &status), 0);
    assert_int_equal(status, 0);
}

static void test_crun_is_read_only(void **state)
{
    struct runtime_program program = RUNTIME_PROGRAM_NULL;
    struct place p;

    place_init(&p);
    int fd = runtime_program_fd(&program, p.crun);
    if (fd < 0) {
        place_done(&p);
        skip(); /* not root, or an old kernel */
    }
    assert_read_only(fd);
    assert_int_equal(runtime_program_fd(&program, p.crun), fd);
    runtime_program_done(&program);
    place_done(&p);
}

static void test_upgrade_is_seen(void **state)
{
    struct runtime_program program = RUNTIME_PROGRAM_NULL;
    struct place p;
    struct stat before, after;

    place_init(&p);
    int fd = runtime_program_fd(&program, p.crun);
    if (fd < 0) {
        place_done(&p);
        skip();
    }
    assert_int_equal(fstat(fd, &before), 0);
    copy_program(p.crun); /* a new file in its place */
    fd = runtime_program_fd(&program, p.crun);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    assert_read_only(fd);
    runtime_program_done(&program);
    place_done(&p);
}

static void test_others_run_by_path(void **state)
{
    static const char script[] = "#!/bin/sh\n";
    struct runtime_program program = RUNTIME_PROGRAM_NULL;
    struct place p;

    place_init(&p);
    assert_int_equal(runtime_program_fd(&program, p.runc), -EBADF);
    assert_int_equal(
        fs_write_file_atomic(AT_FDCWD, p.crun, script, sizeof(script) - 1, 0755, false), 0);
    assert_int_equal(runtime_program_fd(&program, p.crun), -EBADF);
    assert_int_equal(runtime_program_fd(&program, "/nowhere/crun"), -EBADF);
    runtime_program_done(&program);
    place_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crun_is_read_only),
        cmocka_unit_test(test_upgrade_is_seen),
        cmocka_unit_test(test_others_run_by_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

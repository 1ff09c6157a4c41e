/* SPDX-License-Identifier: Apache-2.0 */
/* Two trees in a temporary directory, and what the walk tells of them. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fs.h"
#include "base/str.h"
#include "worker/changes.h"

#define LEFT "left"
#define RIGHT "right"

static const struct timespec old[2] = {{.tv_sec = 1000000000, .tv_nsec = 5},
                                       {.tv_sec = 1000000000, .tv_nsec = 5}};
static const struct timespec whole[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};

struct fixture {
    char dir[64];
    int fd, left_fd, right_fd;
    char told[4096]; /* "+path" set, "-path" deleted, "=path" linked, each with a space behind */
    struct err e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/test-changes-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(f->fd, LEFT, 0755), 0);
    assert_int_equal(mkdirat(f->fd, RIGHT, 0755), 0);
    f->left_fd = openat(f->fd, LEFT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->right_fd = openat(f->fd, RIGHT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close(f->left_fd);
    close(f->right_fd);
    close(f->fd);
    fs_rm_rf(AT_FDCWD, f->dir);
    free(f);
    return 0;
}

static void file(int dir_fd, const char *path, const char *content, const struct timespec times[2])
{
    int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fs_write_all(fd, content, strlen(content)), 0);
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

/* Last of all: what is made in a directory changes its time. */
static void directory_time(int dir_fd, const char *path)
{
    assert_int_equal(utimensat(dir_fd, path, old, 0), 0);
}

static int tell(void *userdata, const struct change *c, struct err *e)
{
    struct fixture *f = userdata;
    size_t n = strlen(f->told);
    char kind = c->kind == CHANGE_SET ? '+' : c->kind == CHANGE_DELETED ? '-' : '=';

    (void)e;
    assert_true(str_has_suffix(c->path, c->name));
    assert_true((c->st == NULL) == (c->kind == CHANGE_DELETED));
    assert_true(c->dir->fd >= 0);
    snprintf(f->told + n, sizeof(f->told) - n, "%c%s ", kind, c->path);
    return 0;
}

static void differ_by(struct fixture *f, const char *expected)
{
    f->told[0] = 0;
    assert_int_equal(changes_walk(f->left_fd, f->right_fd, tell, f, &f->e), 0);
    assert_string_equal(f->told, expected);
}

static void test_in_order(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir_p(f->right_fd, "a/b/c", 0755), 0);
    file(f->right_fd, "a/b.file", "", old);
    file(f->right_fd, "a.b", "", old);
    file(f->right_fd, "\xff", "", old);
    file(f->right_fd, "Z", "", old);
    file(f->left_fd, "b", "", old);
    file(f->right_fd, "b", "", old);
    assert_int_equal(fs_mkdir_p(f->left_fd, "gone/below", 0755), 0);
    differ_by(f, "+Z +a +a/b +a/b/c +a/b.file +a.b -gone +\xff ");
    f->told[0] = 0;
    assert_int_equal(changes_walk(-EBADF, f->right_fd, tell, f, &f->e), 0);
    assert_string_equal(f->told, "+Z +a +a/b +a/b/c +a/b.file +a.b +b +\xff ");
}

static void test_what_makes_a_difference(void **state)
{
    struct fixture *f = *state;
    static const char *const names[] = {"content", "mode", "size", "time", "whole"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        file(f->left_fd, names[i], "1234", i == 4 ? whole : old);
        file(f->right_fd, names[i], "1234", i == 4 ? whole : old);
    }
    assert_int_equal(symlinkat("x", f->left_fd, "link"), 0);
    assert_int_equal(symlinkat("y", f->right_fd, "link"), 0);
    assert_int_equal(utimensat(f->left_fd, "link", whole, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(utimensat(f->right_fd, "link", whole, AT_SYMLINK_NOFOLLOW), 0);
    differ_by(f, "+link ");
    file(f->right_fd, "content", "4321", old); /* which the time of a fraction vouches for */
    file(f->right_fd, "size", "12345", old);
    file(f->right_fd, "time", "1234", whole);
    file(f->right_fd, "whole", "4321", whole);
    assert_int_equal(fchmodat(f->right_fd, "mode", 04755, 0), 0);
    differ_by(f, "+link +mode +size +time +whole ");
}

static void test_one_kind_becomes_another(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir_p(f->left_fd, "dir/below", 0755), 0);
    file(f->right_fd, "dir", "", old);
    file(f->left_fd, "file", "", old);
    assert_int_equal(fs_mkdir_p(f->right_fd, "file/below", 0755), 0);
    assert_int_equal(fs_mkdir_p(f->left_fd, "same/x", 0755), 0);
    assert_int_equal(fs_mkdir_p(f->right_fd, "same/y", 0755), 0);
    directory_time(f->left_fd, "same");
    directory_time(f->right_fd, "same");
    differ_by(f, "+dir +file +file/below -same/x +same/y ");
}

static void test_links(void **state)
{
    struct fixture *f = *state;

    file(f->left_fd, "a", "x", old);
    file(f->right_fd, "a", "x", old);
    differ_by(f, "");
    assert_int_equal(linkat(f->right_fd, "a", f->right_fd, "b", 0), 0);
    differ_by(f, "=a +b ");
}

static void test_not_there(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/" RIGHT "/socket", f->dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    differ_by(f, "");
    file(f->left_fd, "socket", "in its place", old);
    differ_by(f, "-socket ");
    if (geteuid() != 0)
        return;
    file(f->left_fd, "whiteout", "", old);
    assert_int_equal(mknodat(f->right_fd, "whiteout", S_IFCHR | 0600, 0), 0);
    differ_by(f, "-socket -whiteout ");
}

static void test_links_are_not_followed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(symlinkat("/", f->right_fd, "root"), 0);
    assert_int_equal(symlinkat(".", f->right_fd, "self"), 0);
    assert_int_equal(symlinkat("loop", f->right_fd, "loop"), 0);
    assert_int_equal(symlinkat("../" RIGHT, f->left_fd, "d"), 0);
    assert_int_equal(mkdirat(f->right_fd, "d", 0755), 0);
    differ_by(f, "+d +loop +root +self ");
}

static void test_too_deep(void **state)
{
    struct fixture *f = *state;
    int at = dup(f->right_fd);

    for (int i = 0; i < TREE_DEPTH_MAX + 1; i++) {
        assert_int_equal(mkdirat(at, "d", 0700), 0);
        int below = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(below >= 0);
        close(at);
        at = below;
    }
    close(at);
    assert_true(changes_walk(f->left_fd, f->right_fd, tell, f, &f->e) < 0);
    assert_int_equal(f->e.code, ERR_FAILED_PRECONDITION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_makes_a_difference, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_kind_becomes_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links_are_not_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_deep, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

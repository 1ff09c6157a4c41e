/* SPDX-License-Identifier: Apache-2.0 */
/* Two trees, the layer between them, and the tree that comes of applying it to a copy of the left.
 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/layer.h"
#include "worker/layer_writer.h"

#define TAR_MAX (8u << 20)

struct fixture {
    char dir[64];
    int fd, left_fd, right_fd;
    struct buf tar;
    bool given;
    char names[4096]; /* of the entries, "name " or "name>target " */
    struct err e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/test-layer-writer-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(fs_mkdir_p(f->fd, "left", 0755), 0);
    assert_int_equal(fs_mkdir_p(f->fd, "right", 0755), 0);
    f->left_fd = openat(f->fd, "left", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->right_fd = openat(f->fd, "right", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    buf_init(&f->tar, TAR_MAX);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    close(f->left_fd);
    close(f->right_fd);
    close(f->fd);
    buf_done(&f->tar);
    fs_rm_rf(AT_FDCWD, f->dir);
    free(f);
    return 0;
}

static void put(int dir_fd, const char *path, const char *content)
{
    static const struct timespec times[2] = {{.tv_sec = 1000000000, .tv_nsec = 7},
                                             {.tv_sec = 1000000000, .tv_nsec = 7}};
    assert_int_equal(fs_write_file_atomic(dir_fd, path, content, strlen(content), 0644, false), 0);
    assert_int_equal(utimensat(dir_fd, path, times, 0), 0);
}

static int sink(void *userdata, const void *bytes, size_t n, struct err *e)
{
    struct fixture *f = userdata;
    return buf_append(&f->tar, bytes, n) < 0 ? err_oom(e) : 0;
}

static int source(void *userdata, const uint8_t **ret, size_t *ret_len, struct err *e)
{
    struct fixture *f = userdata;
    (void)e;
    *ret = buf_head(&f->tar);
    *ret_len = f->tar.len;
    bool first = !f->given;
    f->given = true;
    return first;
}

static int write_layer(struct fixture *f, uint64_t max_bytes, uint64_t max_entries)
{
    struct tar_writer tar;
    struct layer_writer w;

    buf_clear(&f->tar);
    f->given = false;
    assert_int_equal(tar_writer_init(&tar, sink, f, &f->e), 0);
    assert_int_equal(layer_writer_init(&w, &tar, f->right_fd, max_bytes, max_entries, &f->e), 0);
    int r = changes_walk(f->left_fd, f->right_fd, layer_writer_add, &w, &f->e);
    if (r == 0)
        r = tar_writer_finish(&tar, &f->e);
    layer_writer_done(&w);
    tar_writer_done(&tar);
    return r;
}

static void list(struct fixture *f)
{
    struct tar_reader tar;
    struct archive_entry *a;

    f->names[0] = 0;
    f->given = false;
    assert_int_equal(tar_reader_init(&tar, source, f, 1000, &f->e), 0);
    while (tar_reader_next(&tar, &a, &f->e) > 0) {
        size_t n = strlen(f->names);
        const char *link = archive_entry_hardlink(a);
        snprintf(f->names + n, sizeof(f->names) - n, "%s%s%s ", archive_entry_pathname(a),
                 link ? ">" : "", link ? link : "");
    }
    tar_reader_done(&tar);
}

static void layer_is(struct fixture *f, const char *expected)
{
    assert_int_equal(write_layer(f, 1 << 20, 1000), 0);
    list(f);
    assert_string_equal(f->names, expected);
}

static void test_parents_and_whiteouts(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir_p(f->left_fd, "a/b", 0755), 0);
    put(f->left_fd, "a/b/gone", "x");
    put(f->left_fd, "top", "x");
    assert_int_equal(fs_mkdir_p(f->right_fd, "a/b/new", 0755), 0);
    layer_is(f, "a/ a/b/ a/b/.wh.gone a/b/new/ .wh.top ");
}

static void test_links(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir_p(f->left_fd, "d", 0755), 0);
    assert_int_equal(fs_mkdir_p(f->right_fd, "d", 0755), 0);
    put(f->left_fd, "d/old", "x");
    put(f->right_fd, "d/old", "x");
    put(f->right_fd, "new", "y");
    assert_int_equal(linkat(f->right_fd, "d/old", f->right_fd, "n1", 0), 0);
    assert_int_equal(linkat(f->right_fd, "d/old", f->right_fd, "n2", 0), 0);
    assert_int_equal(linkat(f->right_fd, "new", f->right_fd, "new2", 0), 0);
    struct timespec same[2] = {{.tv_sec = 5}, {.tv_sec = 5}};
    assert_int_equal(utimensat(f->left_fd, "d", same, 0), 0);
    assert_int_equal(utimensat(f->right_fd, "d", same, 0), 0);
    /* d was left behind when its file turned out to be wanted. */
    layer_is(f, "n1 d/ d/old>n1 n2>n1 new new2>new ");
}

static void test_applied_it_gives_the_right_tree(void **state)
{
    struct fixture *f = *state;
    _cleanup_(tree_done) struct tree tree;
    _free_ char *text = NULL;
    struct stat st;

    assert_int_equal(fs_mkdir_p(f->left_fd, "d", 0755), 0);
    put(f->left_fd, "d/gone", "x");
    put(f->right_fd, "d", "now a file");
    put(f->right_fd, "new\nline\xff", "odd");
    assert_int_equal(symlinkat("loop", f->right_fd, "loop"), 0);
    int fd = openat(f->right_fd, "sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 04711);
    assert_int_equal(pwrite(fd, "end", 3, 700000), 3);
    close(fd);
    assert_int_equal(write_layer(f, 1 << 20, 1000), 0);

    f->given = false;
    tree_init(&tree, f->left_fd, WHITEOUTS_PLAIN);
    tree.may_mknod = geteuid() == 0;
    assert_int_equal(layer_apply(&tree, source, f, 1000, false, NULL, &f->e), 0);
    assert_int_equal(fs_read_file(f->left_fd, "d", 100, &text, NULL), 0);
    assert_string_equal(text, "now a file");
    assert_int_equal(fstatat(f->left_fd, "d", &st, 0), 0);
    assert_int_equal(st.st_mtim.tv_nsec, 7);
    assert_true(fs_exists(f->left_fd, "new\nline\xff"));
    assert_int_equal(fstatat(f->left_fd, "sparse", &st, 0), 0);
    assert_int_equal(st.st_size, 700003);
    assert_int_equal(st.st_mode & 07777, 04711);
    assert_int_equal(fstatat(f->left_fd, "loop", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISLNK(st.st_mode));
}

static void test_reserved_names(void **state)
{
    struct fixture *f = *state;

    put(f->left_fd, ".wh.unchanged", "x");
    put(f->right_fd, ".wh.unchanged", "x");
    layer_is(f, "");
    put(f->right_fd, ".wh.new", "x");
    assert_true(write_layer(f, 1 << 20, 1000) < 0);
    assert_int_equal(f->e.code, ERR_FAILED_PRECONDITION);
}

static void test_limits(void **state)
{
    struct fixture *f = *state;

    put(f->right_fd, "a", "0123456789");
    put(f->right_fd, "b", "0123456789");
    assert_int_equal(write_layer(f, 20, 2), 0);
    assert_true(write_layer(f, 19, 2) < 0);
    assert_int_equal(f->e.code, ERR_RESOURCE_EXHAUSTED);
    assert_true(write_layer(f, 20, 1) < 0);
    assert_int_equal(f->e.code, ERR_RESOURCE_EXHAUSTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parents_and_whiteouts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_links, setup, teardown),
        cmocka_unit_test_setup_teardown(test_applied_it_gives_the_right_tree, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
    };
    log_set_level(LOG_FATAL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Archives written by libarchive, unpacked into a temporary directory as whoever runs the tests. */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "worker/layer.h"

#define ARCHIVE_MAX (1 << 20)

struct fixture {
    char dir[64];
    int root_fd;
    struct archive *writer;
    uint8_t *tar;
    size_t size;
    size_t given; /* bytes the source has handed out */
    struct err e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    snprintf(f->dir, sizeof(f->dir), "/tmp/test-layer-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->root_fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->tar = malloc(ARCHIVE_MAX);
    f->writer = archive_write_new();
    archive_write_set_format_pax(f->writer);
    archive_write_open_memory(f->writer, f->tar, ARCHIVE_MAX, &f->size);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->writer)
        archive_write_free(f->writer);
    close(f->root_fd);
    fs_rm_rf(AT_FDCWD, f->dir);
    free(f->tar);
    free(f);
    return 0;
}

static void add(struct fixture *f, const char *name, mode_t mode, const char *content)
{
    struct archive_entry *a = archive_entry_new();
    archive_entry_set_pathname(a, name);
    archive_entry_set_mode(a, mode);
    archive_entry_set_uid(a, geteuid());
    archive_entry_set_gid(a, getegid());
    archive_entry_set_mtime(a, 1000000000, 123456789);
    if (S_ISLNK(mode))
        archive_entry_set_symlink(a, content);
    else if (mode == 0)
        archive_entry_set_hardlink(a, content);
    else if (content)
        archive_entry_xattr_add_entry(a, "user.test", content, strlen(content));
    size_t n = S_ISREG(mode) && content ? strlen(content) : 0;
    archive_entry_set_size(a, (int64_t)n);
    assert_int_equal(archive_write_header(f->writer, a), ARCHIVE_OK);
    if (n > 0)
        assert_int_equal(archive_write_data(f->writer, content, n), n);
    archive_entry_free(a);
}

/* Small pieces, so that headers lie across them. */
static int next_piece(void *source, const uint8_t **ret, size_t *ret_len, struct err *e)
{
    struct fixture *f = source;
    size_t n = MIN_OF(f->size - f->given, (size_t)333);
    *ret = f->tar + f->given;
    *ret_len = n;
    f->given += n;
    return n > 0;
}

static int apply(struct fixture *f, enum whiteouts whiteouts, uint64_t *ret_entries)
{
    _cleanup_(tree_done) struct tree tree;

    if (f->writer) {
        archive_write_free(f->writer);
        f->writer = NULL;
    }
    f->given = 0;
    tree_init(&tree, f->root_fd, whiteouts);
    tree.may_mknod = geteuid() == 0;
    return layer_apply(&tree, next_piece, f, 1000, false, ret_entries, &f->e);
}

static char *read_back(struct fixture *f, const char *path)
{
    char *text = NULL;
    size_t n;
    return fs_read_file(f->root_fd, path, 4096, &text, &n) < 0 ? NULL : text;
}

static void test_content(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    uint64_t entries = 0;

    add(f, "d", S_IFDIR | 0711, NULL);
    add(f, "d/file", S_IFREG | 0640, "content");
    add(f, "d/link", S_IFLNK | 0777, "file");
    add(f, "hard", 0, "d/file");
    add(f, "implied/below/x", S_IFREG | 0600, "x");
    add(f, "fifo", S_IFIFO | 0622, NULL);
    assert_int_equal(apply(f, WHITEOUTS_PLAIN, &entries), 0);
    assert_int_equal(entries, 6);

    _free_ char *text = read_back(f, "d/link");
    assert_string_equal(text, "content");
    assert_int_equal(fstatat(f->root_fd, "d", &st, 0), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 0711);
    assert_int_equal(st.st_mtim.tv_sec, 1000000000);
    assert_int_equal(st.st_mtim.tv_nsec, 123456789);
    assert_int_equal(fstatat(f->root_fd, "hard", &st, 0), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(fstatat(f->root_fd, "implied", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0755);
    assert_int_equal(fstatat(f->root_fd, "fifo", &st, 0), 0);
    assert_int_equal(st.st_mode, S_IFIFO | 0622);
}

static void test_breakouts_stay_inside(void **state)
{
    struct fixture *f = *state;

    add(f, "up", S_IFLNK | 0777, "../../../../../../tmp");
    add(f, "up/canary-of-test-layer", S_IFREG | 0600, "inside");
    add(f, "../../dots", S_IFREG | 0600, "inside");
    add(f, "/absolute", S_IFREG | 0600, "inside");
    add(f, "loop", S_IFLNK | 0777, "other");
    add(f, "other", S_IFLNK | 0777, "dir/../made");
    add(f, "loop/x", S_IFREG | 0600, "inside");
    assert_int_equal(apply(f, WHITEOUTS_PLAIN, NULL), 0);
    assert_int_equal(access("/tmp/canary-of-test-layer", F_OK), -1);

    static const char *const expected[] = {"tmp/canary-of-test-layer", "dots", "absolute",
                                           "made/x"};
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        _free_ char *text = read_back(f, expected[i]);
        assert_non_null(text);
        assert_string_equal(text, "inside");
    }
}

static void refused(void **state, const char *name, mode_t mode, const char *content,
                    const char *sentence)
{
    struct fixture *f;
    void *inner;

    (void)state;
    setup(&inner);
    f = inner;
    add(f, name, mode, content);
    assert_true(apply(f, WHITEOUTS_OVERLAY_USER, NULL) < 0);
    assert_int_equal(f->e.code, ERR_INVALID_ARGUMENT);
    if (!strstr(f->e.msg, sentence))
        fail_msg("%s", f->e.msg);
    teardown(&inner);
}

static void test_refused(void **state)
{
    refused(state, ".wh.", S_IFREG | 0600, NULL, "invalid whiteout name");
    refused(state, "a/.wh..", S_IFREG | 0600, NULL, "invalid whiteout name");
    refused(state, ".wh...", S_IFREG | 0600, NULL, "invalid whiteout name");
    refused(state, ".", S_IFLNK | 0777, "/", "root entry");
    refused(state, "h", 0, "nowhere", "no \"nowhere\" in the layer");
    refused(state, "h", 0, "h", "no usable target");
    refused(state, "h", 0, "/", "no usable target");
}

static void test_whiteouts_performed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(fs_mkdir_p(f->root_fd, "d/sub", 0755), 0);
    assert_int_equal(fs_mkdir_p(f->root_fd, "gone/sub", 0755), 0);
    assert_int_equal(fs_mkdir_p(f->root_fd, "kept", 0755), 0);
    add(f, "d/own", S_IFREG | 0600, "1");
    add(f, "d/.wh..wh..opq", S_IFREG | 0600, NULL);
    add(f, ".wh.gone", S_IFREG | 0600, NULL);
    add(f, ".wh.never", S_IFREG | 0600, NULL);
    add(f, ".wh..wh.plnk/x", S_IFREG | 0600, NULL);
    assert_int_equal(apply(f, WHITEOUTS_PLAIN, NULL), 0);
    assert_true(fs_exists(f->root_fd, "d/own"));
    assert_false(fs_exists(f->root_fd, "d/sub"));
    assert_false(fs_exists(f->root_fd, "gone"));
    assert_true(fs_exists(f->root_fd, "kept"));
    assert_false(fs_exists(f->root_fd, ".wh..wh.plnk"));
}

static void test_xattrs(void **state)
{
    struct fixture *f = *state;
    char value[64];

    add(f, "d", S_IFDIR | 0755, "value");
    assert_int_equal(apply(f, WHITEOUTS_PLAIN, NULL), 0);
    _close_ int fd = openat(f->root_fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ssize_t n = fgetxattr(fd, "user.test", value, sizeof(value));
    if (n < 0 && errno == ENOTSUP)
        skip();
    assert_int_equal(n, 5);
    assert_memory_equal(value, "value", 5);
}

static void test_entries_are_counted(void **state)
{
    struct fixture *f = *state;
    char name[32];

    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        add(f, name, S_IFLNK | 0777, "x");
    }
    _cleanup_(tree_done) struct tree tree;
    archive_write_free(f->writer);
    f->writer = NULL;
    tree_init(&tree, f->root_fd, WHITEOUTS_PLAIN);
    assert_true(layer_apply(&tree, next_piece, f, 10, false, NULL, &f->e) < 0);
    assert_int_equal(f->e.code, ERR_RESOURCE_EXHAUSTED);
}

static void clean_is(const char *in, const char *expected)
{
    char out[TREE_PATH_MAX + 1];
    assert_int_equal(tree_clean(in, out, NULL), 0);
    assert_string_equal(out, expected);
}

static void test_clean(void **state)
{
    clean_is("", "");
    clean_is("/", "");
    clean_is("./", "");
    clean_is("../..", "");
    clean_is("a/b", "a/b");
    clean_is("//a///b//", "a/b");
    clean_is("./a/./b/.", "a/b");
    clean_is("a/../b", "b");
    clean_is("a/b/../../..//c", "c");
    clean_is("..a/...", "..a/...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),
        cmocka_unit_test_setup_teardown(test_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_breakouts_stay_inside, setup, teardown),
        cmocka_unit_test(test_refused),
        cmocka_unit_test_setup_teardown(test_whiteouts_performed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_xattrs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries_are_counted, setup, teardown),
    };
    log_set_level(LOG_FATAL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

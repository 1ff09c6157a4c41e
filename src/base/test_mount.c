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
#include <sys/statvfs.h>

#include "base/fs.h"
#include "base/mount.h"
#include "base/str.h"

static char dir[64];
static bool may_mount;

static int setup(_unused_ void **state)
{
    snprintf(dir, sizeof(dir), "/tmp/test-mount-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(_unused_ void **state)
{
    if (may_mount)
        mount_unmount_below(dir);
    return fs_rm_rf(AT_FDCWD, dir);
}

/* dir/name; from a few places in turn, so that some can be used at once. */
static const char *at(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
    return path;
}

static void make_dir(const char *name)
{
    assert_int_equal(fs_mkdir_p(AT_FDCWD, at(name), 0755), 0);
}

static void make_file(const char *name)
{
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, at(name), "x", 1, 0644, false), 0);
}

static bool there(const char *name)
{
    return fs_exists(AT_FDCWD, at(name));
}

static struct mount mount_of(const char *type, const char *source, const char *const *options)
{
    static char sources[4][256];
    static unsigned next;
    char *copy = sources[next++ % 4];

    snprintf(copy, sizeof(sources[0]), "%s", source);
    return (struct mount){
        .type = (char *)type, .source = copy, .options = (char **)(uintptr_t)options};
}

static void add(struct mount_list *l, const char *type, const char *source, const char *target,
                const char *const *options)
{
    assert_int_equal(mount_list_add(l, type, source, target, (char *const *)(uintptr_t)options), 0);
}

static void parse(const char *options, unsigned long flags, unsigned long propagation,
                  const char *data)
{
    _cleanup_(strv_freep) char **v = NULL;
    _free_ char *copy = strdup(options);
    _free_ char *got_data = NULL;
    unsigned long got_flags, got_propagation;

    for (char *s = copy; *s;) {
        size_t n = strcspn(s, " ");
        bool more = s[n];
        s[n] = 0;
        assert_int_equal(strv_push(&v, s), 0);
        s += n + more;
    }
    assert_int_equal(mount_parse_options(v, &got_flags, &got_propagation, &got_data), 0);
    assert_int_equal(got_flags, flags);
    assert_int_equal(got_propagation, propagation);
    if (data)
        assert_string_equal(got_data, data);
    else
        assert_null(got_data);
}

static void options_are_parsed(_unused_ void **state)
{
    parse("", 0, 0, NULL);
    parse("rbind ro", MS_BIND | MS_REC | MS_RDONLY, 0, NULL);
    parse("ro rw bind", MS_BIND, 0, NULL);
    parse("nosuid nodev noexec suid", MS_NODEV | MS_NOEXEC, 0, NULL);
    parse("noatime relatime strictatime norelatime", MS_NOATIME | MS_STRICTATIME, 0, NULL);
    parse("bind rprivate", MS_BIND, MS_PRIVATE | MS_REC, NULL);
    parse("rslave", 0, MS_SLAVE | MS_REC, NULL);
    parse("mode=755 nosuid size=64k defaults", MS_NOSUID, 0, "mode=755,size=64k");
    parse("loop ro errors=panic", MS_RDONLY, 0, "errors=panic");
}

static void shorten(const char *data, const char *dir_wanted, const char *data_wanted)
{
    _free_ char *got_dir = NULL;
    _free_ char *got_data = NULL;
    int r = mount_shorten_overlay(data, &got_dir, &got_data);

    if (!dir_wanted) {
        assert_int_equal(r, -E2BIG);
        return;
    }
    assert_int_equal(r, 0);
    assert_string_equal(got_dir, dir_wanted);
    assert_string_equal(got_data, data_wanted);
}

static void overlay_options_are_shortened(_unused_ void **state)
{
    shorten("workdir=/s/3/work,upperdir=/s/3/fs,lowerdir=/s/12/fs:/s/11/fs,index=off", "/s/",
            "workdir=/s/3/work,upperdir=/s/3/fs,lowerdir=12/fs:11/fs,index=off");
    shorten("lowerdir=/a/b/c:/a/b/d", "/a/b/", "lowerdir=c:d");
    shorten("lowerdir=/a/x\\:y:/a/z", "/a/", "lowerdir=x\\:y:z");
    shorten("lowerdir=/a/bc", "/a/", "lowerdir=bc");
    shorten("lowerdir=/a:/b", NULL, NULL);
    shorten("lowerdir=/s/1/fs:/s/", NULL, NULL);
    shorten("lowerdir=a/b:a/c", NULL, NULL);
    shorten("xlowerdir=/a/b:/a/c", NULL, NULL);
    shorten("index=off", NULL, NULL);
    shorten("lowerdir=", NULL, NULL);
}

static void lists_copy(_unused_ void **state)
{
    _cleanup_(mount_list_done) struct mount_list l = {.mounts = NULL};
    const char *options[] = {"ro", "rbind", NULL};

    add(&l, "bind", "/src", NULL, options);
    add(&l, "tmpfs", "tmpfs", "sub", NULL);
    assert_int_equal(l.n, 2);
    assert_string_equal(l.mounts[0].options[1], "rbind");
    assert_null(l.mounts[0].target);
    assert_string_equal(l.mounts[1].target, "sub");
    while (l.n < MOUNT_LIST_MAX)
        add(&l, "bind", "/src", NULL, options);
    assert_int_equal(mount_list_add(&l, "bind", "/src", NULL, NULL), -ENOBUFS);
}

static void bind_mounts(_unused_ void **state)
{
    const char *read_only[] = {"rbind", "ro", NULL};
    const char *writable[] = {"rbind", "rw", NULL};
    const char *careful[] = {"bind", "nosuid", "noexec", "rshared", NULL};
    struct statvfs st;
    struct err e = ERR_INIT;

    if (!may_mount)
        skip();
    make_dir("source");
    make_dir("target");
    make_file("source/f");
    struct mount m = mount_of("bind", at("source"), read_only);
    assert_int_equal(mount_do(&m, at("target"), &e), 0);
    assert_true(there("target/f"));
    assert_true(mount_is_mountpoint(at("target")));
    assert_false(mount_is_mountpoint(at("source")));
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, at("target/g"), "x", 1, 0644, false), -EROFS);
    make_file("source/g"); /* the source stays writable */

    m.options = (char **)writable;
    assert_int_equal(mount_do(&m, at("target"), &e), 0);
    make_file("target/h");
    assert_int_equal(mount_unmount_all(at("target"), false), 0); /* both */
    assert_false(mount_is_mountpoint(at("target")));

    m.options = (char **)careful;
    assert_int_equal(mount_do(&m, at("target"), &e), 0);
    assert_int_equal(statvfs(at("target"), &st), 0);
    assert_int_equal(st.f_flag & (ST_NOSUID | ST_NOEXEC | ST_RDONLY), ST_NOSUID | ST_NOEXEC);
    /* Read-only on top of it keeps what was there. */
    m = mount_of("bind", at("target"), read_only);
    assert_int_equal(mount_do(&m, at("target"), &e), 0);
    assert_int_equal(statvfs(at("target"), &st), 0);
    assert_int_equal(st.f_flag & (ST_NOSUID | ST_NOEXEC | ST_RDONLY),
                     ST_NOSUID | ST_NOEXEC | ST_RDONLY);
    assert_int_equal(mount_unmount_all(at("target"), false), 0);
}

static void overlay_with_many_layers(_unused_ void **state)
{
    struct err e = ERR_INIT;
    char name[64];

    if (!may_mount)
        skip();
    _free_ char *lower = str_printf("lowerdir=");
    for (int i = 0; i < 150; i++) {
        snprintf(name, sizeof(name), "snapshots/%d/fs", i);
        make_dir(name);
        snprintf(name, sizeof(name), "snapshots/%d/fs/file-%d", i, i);
        make_file(name);
        snprintf(name, sizeof(name), "snapshots/%d/fs", i);
        char *longer = str_printf("%s%s%s", lower, i ? ":" : "", at(name));
        free(lower);
        lower = longer;
    }
    assert_true(strlen(lower) > MOUNT_DATA_MAX);
    make_dir("snapshots/new/fs");
    make_dir("snapshots/new/work");
    make_dir("rootfs");
    _free_ char *upper = str_printf("upperdir=%s", at("snapshots/new/fs"));
    _free_ char *work = str_printf("workdir=%s", at("snapshots/new/work"));
    const char *options[] = {work, upper, lower, NULL};
    struct mount m = mount_of("overlay", "overlay", options);
    char before[256], after[256];
    assert_non_null(getcwd(before, sizeof(before)));
    if (mount_do(&m, at("rootfs"), &e) < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(getcwd(after, sizeof(after)), before);
    assert_true(there("rootfs/file-0"));
    assert_true(there("rootfs/file-149"));
    make_file("rootfs/new");
    assert_true(there("snapshots/new/fs/new"));
    assert_int_equal(mount_unmount_all(at("rootfs"), false), 0);

    /* A short one takes the direct way. */
    _free_ char *two = str_printf("lowerdir=%s:%s", at("snapshots/1/fs"), at("snapshots/2/fs"));
    options[2] = two;
    assert_int_equal(mount_do(&m, at("rootfs"), &e), 0);
    assert_true(there("rootfs/file-2"));
    assert_int_equal(mount_unmount_all(at("rootfs"), false), 0);
}

static void errors_help(_unused_ void **state)
{
    const char *options[] = {"rbind", NULL};
    const char *left[] = {"X-containerd.custom=1", NULL};
    struct err e = ERR_INIT;

    if (!may_mount)
        skip();
    make_dir("target");
    struct mount m = mount_of("bind", at("none"), options);
    assert_true(mount_do(&m, at("target"), &e) < 0);
    assert_int_equal(e.code, ERR_UNKNOWN);
    assert_non_null(strstr(e.msg, "mount source: \"/tmp/test-mount-"));
    assert_non_null(strstr(e.msg, "fstype: bind, flags: 20480, data: \"\", err (the source does "
                                  "not exist): no such file or directory"));
    m = mount_of("nosuchfs", "x", NULL);
    assert_true(mount_do(&m, at("target"), &e) < 0);
    assert_non_null(strstr(e.msg, "no such filesystem type"));
    m = mount_of("tmpfs", "x", left);
    assert_true(mount_do(&m, at("target"), &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
}

static void all_or_nothing(_unused_ void **state)
{
    _cleanup_(mount_list_done) struct mount_list l = {.mounts = NULL};
    const char *none[] = {NULL};
    const char *mode[] = {"mode=0755", NULL};
    struct err e = ERR_INIT;

    if (!may_mount)
        skip();
    make_dir("target");
    make_dir("source/sub");
    const char *rbind[] = {"rbind", NULL};
    add(&l, "bind", at("source"), NULL, rbind);
    add(&l, "tmpfs", "tmpfs", "/sub", mode);
    assert_int_equal(mount_all(&l, at("target"), &e), 0);
    assert_true(mount_is_mountpoint(at("target/sub")));
    assert_int_equal(mount_unmount_below(at("target")), 0);
    assert_false(mount_is_mountpoint(at("target")));

    add(&l, "tmpfs", "tmpfs", "/none", none);
    assert_true(mount_all(&l, at("target"), &e) < 0);
    assert_false(mount_is_mountpoint(at("target")));
    assert_false(mount_is_mountpoint(at("source/sub")));
    assert_false(there("target/sub"));
}

static void unmounting(_unused_ void **state)
{
    const char *none[] = {NULL};
    struct err e = ERR_INIT;

    if (!may_mount)
        skip();
    assert_int_equal(mount_unmount_all(at("none"), false), 0);
    assert_int_equal(mount_unmount_once(at("none"), 0), 0);
    make_dir("with space\\/and\nline");
    struct mount m = mount_of("tmpfs", "tmpfs", none);
    assert_int_equal(mount_do(&m, at("with space\\"), &e), 0);
    make_dir("with space\\/and\nline");
    assert_int_equal(mount_do(&m, at("with space\\/and\nline"), &e), 0);
    make_dir("with space\\/and\nline/x");
    int busy = open(at("with space\\/and\nline/x"), O_PATH | O_CLOEXEC);
    assert_int_equal(mount_unmount_once(at("with space\\/and\nline"), 0), -EBUSY);
    make_dir("with spac");
    assert_int_equal(mount_do(&m, at("with spac"), &e), 0);
    assert_int_equal(mount_unmount_below(at("with space\\/")), 0);
    close(busy);
    assert_false(mount_is_mountpoint(at("with space\\")));
    assert_true(mount_is_mountpoint(at("with spac"))); /* a prefix of letters, not of names */
    busy = open(at("with spac"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mount_unmount_all(at("with spac"), true), 0);
    close(busy);
    assert_false(mount_is_mountpoint(at("with spac")));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(options_are_parsed), T(overlay_options_are_shortened), T(lists_copy),     T(bind_mounts),
        T(errors_help),        T(overlay_with_many_layers),      T(all_or_nothing), T(unmounting),
    };
    /* Nothing of this is seen outside. */
    may_mount = unshare(CLONE_NEWNS) == 0 && mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}

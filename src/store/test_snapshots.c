/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "store/leases.h"
#include "store/snapshotter.h"

static const struct strmap none = {};

static struct snapshotters *open_all(struct test_store *t)
{
    struct snapshotters *all = NULL;

    if (snapshotters_new(t->dir, NULL, t->db, &all, &t->e) < 0)
        fail_msg("%s", t->e.msg);
    return all;
}

static struct snapshotter *get(struct test_store *t, struct snapshotters *all, const char *name)
{
    struct snapshotter *s = NULL;

    if (geteuid() != 0)
        skip();
    assert_ok(t, snapshotters_get(all, name, &s, &t->e));
    return s;
}

static void prepare(struct test_store *t, struct snapshotter *s, const char *key,
                    const char *parent, bool view)
{
    _cleanup_(mount_list_done) struct mount_list m = {};

    assert_ok(t, snapshot_prepare(s, "ns", "", key, parent, &none, view, &m, &t->e));
    assert_int_equal(m.n, 1);
}

static void layer(struct test_store *t, struct snapshotter *s, const char *name, const char *parent)
{
    prepare(t, s, "key", parent, false);
    assert_ok(t, snapshot_commit(s, "ns", "", name, "key", &none, &t->e));
}

static int directories(struct test_store *t, const char *snapshotter)
{
    char path[128];
    struct dirent *entry;
    int n = 0;

    snprintf(path, sizeof(path), "%s/io.containerd.snapshotter.v1.%s/snapshots", t->dir,
             snapshotter);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* Options joined by '|', with the root replaced by R. */
static void assert_mount(struct test_store *t, struct snapshotter *s, const char *key,
                         const char *expected)
{
    _cleanup_(mount_list_done) struct mount_list l = {};
    char text[2048];
    size_t n;

    assert_ok(t, snapshot_mounts(s, "ns", key, &l, &t->e));
    n = (size_t)snprintf(text, sizeof(text), "%s|%s", l.mounts[0].type, l.mounts[0].source);
    for (char **o = l.mounts[0].options; *o; o++)
        if (!str_eq(*o, "index=off"))
            n += (size_t)snprintf(text + n, sizeof(text) - n, "|%s", *o);
    for (char *at; (at = strstr(text, s->root));) {
        *at = 'R';
        memmove(at + 1, at + strlen(s->root), strlen(at + strlen(s->root)) + 1);
    }
    assert_string_equal(text, expected);
}

static void overlay_mounts(void **state)
{
    struct test_store *t = *state;
    struct snapshotters *all = open_all(t);
    struct snapshotter *s = get(t, all, "overlayfs");

    prepare(t, s, "key", "", false);
    assert_mount(t, s, "key", "bind|R/snapshots/1/fs|rw|rbind");
    assert_ok(t, snapshot_commit(s, "ns", "", "one", "key", &none, &t->e));
    prepare(t, s, "view", "", true);
    assert_mount(t, s, "view", "bind|R/snapshots/2/fs|ro|rbind");
    prepare(t, s, "view1", "one", true);
    assert_mount(t, s, "view1", "bind|R/snapshots/1/fs|ro|rbind");
    layer(t, s, "two", "one");
    prepare(t, s, "k", "two", false);
    assert_mount(t, s, "k",
                 "overlay|overlay|workdir=R/snapshots/5/work|upperdir=R/snapshots/5/fs|"
                 "lowerdir=R/snapshots/4/fs:R/snapshots/1/fs");
    prepare(t, s, "view2", "two", true);
    assert_mount(t, s, "view2", "overlay|overlay|lowerdir=R/snapshots/4/fs:R/snapshots/1/fs");
    snapshotters_free(all);
}

static void modes(void **state)
{
    struct test_store *t = *state;
    struct snapshotters *all = open_all(t);
    struct snapshotter *s = get(t, all, "overlayfs");
    struct stat st;

    prepare(t, s, "key", "", false);
    assert_int_equal(fstat(s->dirs_fd, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(fstatat(s->dirs_fd, "1/fs", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(fstatat(s->dirs_fd, "1/work", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0711);
    /* The root of a container looks like its image's. */
    assert_int_equal(fchmodat(s->dirs_fd, "1/fs", 01777, 0), 0);
    assert_int_equal(fchownat(s->dirs_fd, "1/fs", 7, 8, 0), 0);
    assert_ok(t, snapshot_commit(s, "ns", "", "one", "key", &none, &t->e));
    prepare(t, s, "k", "one", false);
    assert_int_equal(fstatat(s->dirs_fd, "2/fs", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 01777);
    assert_int_equal(st.st_uid, 7);
    assert_int_equal(st.st_gid, 8);
    snapshotters_free(all);
}

static void rules(void **state)
{
    struct test_store *t = *state;
    struct snapshotters *all = open_all(t);
    struct snapshotter *s = get(t, all, "native");
    _cleanup_(strmap_done) struct strmap target = MAP("containerd.io/snapshot.ref=one");
    _cleanup_(mount_list_done) struct mount_list m = {};
    _cleanup_(snapshot_info_done) struct snapshot_info i = {};

    layer(t, s, "one", "");
    prepare(t, s, "k", "one", false);
    assert_fails(t, snapshot_prepare(s, "ns", "", "k", "", &none, false, &m, &t->e),
                 ERR_ALREADY_EXISTS, "snapshot \"k\": already exists");
    assert_fails(t, snapshot_prepare(s, "ns", "", "x", "k", &none, false, &m, &t->e),
                 ERR_INVALID_ARGUMENT, "parent \"k\" is not committed snapshot: invalid argument");
    assert_fails(t, snapshot_prepare(s, "ns", "", "x", "no", &none, false, &m, &t->e),
                 ERR_NOT_FOUND, "parent snapshot no does not exist: not found");
    assert_fails(t, snapshot_prepare(s, "ns", "", "x", "", &target, false, &m, &t->e),
                 ERR_ALREADY_EXISTS, "target snapshot \"one\": already exists");
    assert_fails(t, snapshot_prepare(s, "ns", "lost", "x", "", &none, false, &m, &t->e),
                 ERR_NOT_FOUND, "lease does not exist: not found");
    assert_fails(t, snapshot_mounts(s, "ns", "one", &m, &t->e), ERR_FAILED_PRECONDITION,
                 "requested snapshot one not active or view: failed precondition");
    assert_fails(t, snapshot_mounts(s, "other", "k", &m, &t->e), ERR_NOT_FOUND,
                 "snapshot k does not exist: not found");
    assert_fails(t, snapshot_remove(s, "ns", "one", &t->e), ERR_FAILED_PRECONDITION,
                 "cannot remove snapshot with child: failed precondition");
    assert_fails(t, snapshot_commit(s, "ns", "", "one", "k", &none, &t->e), ERR_ALREADY_EXISTS,
                 "snapshot \"one\": already exists");
    assert_fails(t, snapshot_commit(s, "ns", "", "two", "one", &none, &t->e),
                 ERR_FAILED_PRECONDITION, "snapshot \"one\" is not active: failed precondition");
    prepare(t, s, "v", "one", true);
    assert_fails(t, snapshot_commit(s, "ns", "", "two", "v", &none, &t->e), ERR_FAILED_PRECONDITION,
                 "snapshot \"v\" is not active: failed precondition");
    assert_ok(t, snapshot_stat(s, "ns", "k", &i, &t->e));
    assert_string_equal(i.parent, "one");
    assert_int_equal(i.kind, SNAPSHOT_ACTIVE);
    assert_int_equal(directories(t, "native"), 3);
    assert_ok(t, snapshot_remove(s, "ns", "k", &t->e));
    assert_ok(t, snapshot_remove(s, "ns", "v", &t->e));
    assert_ok(t, snapshot_remove(s, "ns", "one", &t->e));
    assert_fails(t, snapshot_remove(s, "ns", "one", &t->e), ERR_NOT_FOUND,
                 "snapshot one does not exist: not found");
    snapshotter_reap(s);
    assert_int_equal(directories(t, "native"), 0);
    assert_fails(t, snapshotters_get(all, "", &s, &t->e), ERR_INVALID_ARGUMENT,
                 "snapshotter argument missing: invalid argument");
    assert_fails(t, snapshotters_get(all, "zfs", &s, &t->e), ERR_INVALID_ARGUMENT,
                 "snapshotter not loaded: zfs: invalid argument");
    snapshotters_free(all);
}

static int count(const struct snapshot_info *i, void *userdata)
{
    (*(int *)userdata)++;
    return 0;
}

static void commit_moves(void **state)
{
    struct test_store *t = *state;
    struct snapshotters *all = open_all(t);
    struct snapshotter *s = get(t, all, "native");
    _cleanup_(strmap_done) struct strmap before = MAP("a=1"), after = MAP("b=2");
    _cleanup_(mount_list_done) struct mount_list m = {};
    _cleanup_(snapshot_info_done) struct snapshot_info i = {};
    _cleanup_(lease_done) struct lease l = {};
    _cleanup_(lease_resource_list_done) struct lease_resource_list held = {};
    _cleanup_(filter_freep) struct filter *filter = NULL;
    const char *expression = "kind==committed,labels.b==2";
    int64_t bytes, inodes;
    int n = 0, fd;

    assert_ok(t, lease_create(t->db, "ns", "l", &none, &l, &t->e));
    assert_ok(t, snapshot_prepare(s, "ns", "l", "k", "", &before, false, &m, &t->e));
    fd = openat(s->dirs_fd, "1/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    assert_int_equal(write(fd, "hello", 5), 5);
    close(fd);
    assert_ok(t, snapshot_commit(s, "ns", "l", "one", "k", &after, &t->e));
    assert_ok(t, lease_list_resources(t->db, "ns", "l", &held, &t->e));
    assert_int_equal(held.n, 1);
    assert_string_equal(held.resources[0].type, "snapshots/native");
    assert_string_equal(held.resources[0].id, "one");
    assert_ok(t, snapshot_stat(s, "ns", "one", &i, &t->e));
    assert_int_equal(i.labels.n, 1);
    assert_string_equal(strmap_get(&i.labels, "b"), "2");
    assert_ok(t, snapshot_usage(s, "ns", "one", &bytes, &inodes, &t->e));
    assert_int_equal(inodes, 2);
    assert_true(bytes >= 4096);
    assert_ok(t, filter_parse(&expression, 1, &filter, &t->e));
    assert_ok(t, snapshot_walk(s, "ns", NULL, filter, count, &n, &t->e));
    assert_int_equal(n, 1);
    /* A copy of the parent for who writes, the parent itself for who reads. */
    prepare(t, s, "w", "one", false);
    assert_int_equal(faccessat(s->dirs_fd, "2/file", F_OK, 0), 0);
    prepare(t, s, "v", "one", true);
    assert_mount(t, s, "v", "bind|R/snapshots/1|rbind|ro");
    snapshotters_free(all);
}

static _noreturn_ void end_badly(struct test_store *t)
{
    print_error("%s\n", t->e.msg);
    _exit(1);
}

/* A record always has its directory, and the sweep leaves no directory without record. */
static void killed(void **state)
{
    struct test_store *t = *state;
    struct snapshotters *all;
    struct snapshotter *s;
    int n = 0;

    if (geteuid() != 0)
        skip();
    t->db = db_close(t->db);
    for (int round = 0; round < 24; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (db_open(t->path, &t->db, &t->e) < 0)
                end_badly(t);
            all = open_all(t);
            s = get(t, all, "overlayfs");
            for (int k = 0;; k++) {
                struct mount_list m = {};
                char key[32], name[32];
                snprintf(key, sizeof(key), "k-%d-%d", round, k);
                snprintf(name, sizeof(name), "c-%d-%d", round, k);
                if (snapshot_prepare(s, "ns", "", key, "", &none, false, &m, &t->e) < 0)
                    end_badly(t);
                mount_list_done(&m);
                if (k % 8 == 0 && snapshot_commit(s, "ns", "", name, key, &none, &t->e) < 0)
                    end_badly(t);
                if (k % 8 != 0 && k % 3 == 1 && snapshot_remove(s, "ns", key, &t->e) < 0)
                    end_badly(t);
            }
        }
        usleep(20000 + 3000 * (unsigned)round);
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
    }
    assert_ok(t, db_open(t->path, &t->db, &t->e));
    all = open_all(t);
    s = get(t, all, "overlayfs");
    assert_ok(t, snapshotters_sweep(all, &t->e));
    assert_ok(t, snapshot_walk(s, "ns", NULL, NULL, count, &n, &t->e));
    assert_true(n > 0);
    assert_int_equal(directories(t, "overlayfs"), n);
    snapshotters_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(overlay_mounts), TEST(modes), TEST(rules), TEST(commit_moves), TEST(killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

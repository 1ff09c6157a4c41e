/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "store/content_store.h"
#include "store/labels.h"
#include "store/leases.h"

#define HELLO_DIGEST "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
#define WORLD_DIGEST "sha256:045f13dd864bafaad0dd977ac971de549b090cb2836f061d0779b26dd9bb8f4b"
#define HELLO_WORLD_DIGEST "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
#define EMPTY_DIGEST "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct strmap none = {};

static struct content_store *store_of(struct test_store *t, enum content_sharing sharing)
{
    char root[64];
    struct content_store *s = NULL;

    snprintf(root, sizeof(root), "%s/content", t->dir);
    assert_ok(t, content_store_new(root, t->db, sharing, &s, &t->e));
    return s;
}

static struct content_writer *open_writer(struct test_store *t, struct content_store *s,
                                          const char *ns, const char *ref, const char *expected)
{
    struct content_writer *w = NULL;

    assert_ok(t, content_writer_open(s, ns, "", ref, 0, expected, &w, &t->e));
    return w;
}

static void put(struct test_store *t, struct content_store *s, const char *ns, const char *text)
{
    struct content_writer *w = open_writer(t, s, ns, "put", NULL);
    _free_ char *digest = NULL;

    assert_ok(t, content_writer_write(w, text, strlen(text), &t->e));
    assert_ok(t, content_writer_commit(w, (int64_t)strlen(text), NULL, &none, &digest, &t->e));
    content_writer_close(w);
}

static int entries(struct test_store *t, const char *below)
{
    char path[96];
    struct dirent *entry;
    int n = 0;

    snprintf(path, sizeof(path), "%s/content/%s", t->dir, below);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void write_commit_read(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w = open_writer(t, s, "ns", "r", HELLO_DIGEST);
    _cleanup_(strmap_done) struct strmap labels = MAP("a=b");
    _cleanup_(content_info_done) struct content_info i = {};
    _cleanup_(content_status_done) struct content_status st = {};
    _free_ char *digest = NULL;
    _close_ int fd = -EBADF;
    struct stat file;
    char text[8] = "";
    int64_t size;

    assert_ok(t, content_writer_write(w, "hel", 3, &t->e));
    assert_ok(t, content_writer_write(w, "lo", 2, &t->e));
    assert_ok(t, content_writer_status(w, &st, &t->e));
    assert_int_equal(st.offset, 5);
    assert_ok(t, content_writer_commit(w, 5, HELLO_DIGEST, &labels, &digest, &t->e));
    content_writer_close(w);
    assert_string_equal(digest, HELLO_DIGEST);
    assert_int_equal(entries(t, "ingest"), 0);

    assert_ok(t, content_stat(s, "ns", HELLO_DIGEST, &i, &t->e));
    assert_int_equal(i.size_bytes, 5);
    assert_string_equal(strmap_get(&i.labels, "a"), "b");
    assert_ok(t, content_open(s, "ns", HELLO_DIGEST, &fd, &size, &t->e));
    assert_int_equal(read(fd, text, sizeof(text)), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(fstat(fd, &file), 0);
    assert_int_equal(file.st_mode & 07777, 0444);
    assert_fails(t, content_open(s, "other", HELLO_DIGEST, &fd, &size, &t->e), ERR_NOT_FOUND,
                 "content digest " HELLO_DIGEST ": not found");
    assert_fails(t, content_stat(s, "ns", "sha256:../..", &i, &t->e), ERR_INVALID_ARGUMENT,
                 "\"sha256:../..\" failed validation");
    content_store_free(s);
}

static void expectations(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w = open_writer(t, s, "ns", "r", NULL);
    _free_ char *digest = NULL;

    assert_ok(t, content_writer_write(w, "hello", 5, &t->e));
    assert_fails(t, content_writer_commit(w, 6, NULL, &none, &digest, &t->e),
                 ERR_FAILED_PRECONDITION,
                 "\"r\" failed size validation: 5 != 6: failed precondition");
    assert_fails(t, content_writer_commit(w, 5, EMPTY_DIGEST, &none, &digest, &t->e),
                 ERR_FAILED_PRECONDITION,
                 "unexpected commit digest " HELLO_DIGEST ", expected " EMPTY_DIGEST
                 ": failed precondition");
    /* Truncated, it is another blob. */
    assert_ok(t, content_writer_truncate(w, &t->e));
    assert_ok(t, content_writer_commit(w, 0, EMPTY_DIGEST, &none, &digest, &t->e));
    content_writer_close(w);
    content_store_free(s);
}

static void resume(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w = open_writer(t, s, "ns", "r", NULL);
    _cleanup_(content_status_done) struct content_status st = {}, again = {};
    _free_ char *digest = NULL;

    assert_ok(t, content_writer_write(w, "hel", 3, &t->e));
    content_writer_close(w);
    /* Another daemon goes on. */
    content_store_free(s);
    s = store_of(t, CONTENT_SHARED);
    assert_ok(t, content_status(s, "ns", "r", &st, &t->e));
    assert_int_equal(st.offset, 3);
    w = open_writer(t, s, "ns", "r", NULL);
    assert_ok(t, content_writer_status(w, &again, &t->e));
    assert_int_equal(again.offset, 3);
    assert_ok(t, content_writer_write(w, "lo", 2, &t->e));
    assert_ok(t, content_writer_commit(w, 5, HELLO_DIGEST, &none, &digest, &t->e));
    content_writer_close(w);
    assert_fails(t, content_status(s, "ns", "r", &st, &t->e), ERR_NOT_FOUND,
                 "reference r: not found");
    content_store_free(s);
}

/* What a crash between the name of a blob and its record leaves: one file under two names. */
static void resume_behind_a_blob(void **state)
{
    struct test_store *t = *state;
    char data[128], blob[256], text[16] = "";

    for (int truncates = 0; truncates < 2; truncates++) {
        struct content_store *s = store_of(t, CONTENT_SHARED);
        struct content_writer *w = open_writer(t, s, "ns", "r", NULL);
        _free_ char *digest = NULL;

        assert_ok(t, content_writer_write(w, "hello", 5, &t->e));
        snprintf(data, sizeof(data), "%s/content/ingest/%s/data", t->dir, w->name);
        snprintf(blob, sizeof(blob), "%s/content/blobs/sha256/%s", t->dir,
                 strchr(HELLO_DIGEST, ':') + 1);
        content_writer_close(w);
        assert_int_equal(link(data, blob), 0);
        content_store_free(s);

        s = store_of(t, CONTENT_SHARED);
        w = open_writer(t, s, "ns", "r", NULL);
        if (truncates)
            assert_ok(t, content_writer_truncate(w, &t->e));
        assert_ok(t, content_writer_write(w, " world", 6, &t->e));
        int fd = open(blob, O_RDONLY | O_CLOEXEC);
        assert_int_equal(read(fd, text, sizeof(text)), 5);
        close(fd);
        assert_memory_equal(text, "hello", 5);
        assert_ok(t, content_writer_commit(w, truncates ? 6 : 11, NULL, &none, &digest, &t->e));
        assert_string_equal(digest, truncates ? WORLD_DIGEST : HELLO_WORLD_DIGEST);
        content_writer_close(w);
        /* The file under the older name is nobody's, and goes. */
        assert_ok(t, content_sweep(s, &t->e));
        assert_int_equal(access(blob, F_OK), -1);
        assert_int_equal(entries(t, "ingest"), 0);
        assert_int_equal(entries(t, "blobs/sha256"), 1 + truncates);
        content_store_free(s);
    }
}

static void locks(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w = open_writer(t, s, "ns", "r", NULL);
    struct content_writer *other = NULL, *second = NULL;

    assert_true(content_writer_open(s, "ns", "", "r", 0, NULL, &second, &t->e) < 0);
    assert_int_equal(t->e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(t->e.msg, "ref ns/1/r locked for 0."));
    assert_non_null(strstr(t->e.msg, "): unavailable"));
    /* A reference is its namespace's alone. */
    other = open_writer(t, s, "other", "r", NULL);
    content_writer_close(other);
    content_writer_close(w);
    w = open_writer(t, s, "ns", "r", NULL);
    content_writer_close(w);
    assert_fails(t, content_writer_open(s, "ns", "", "", 0, NULL, &w, &t->e), ERR_INVALID_ARGUMENT,
                 "reference must not be empty: invalid argument");
    assert_fails(t, content_writer_open(s, "ns", "", "a\nb", 0, NULL, &w, &t->e),
                 ERR_INVALID_ARGUMENT, "reference holds a control character: invalid argument");
    content_store_free(s);
}

static void already_there(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    _cleanup_(lease_done) struct lease l = {};
    _cleanup_(lease_resource_list_done) struct lease_resource_list held = {};
    struct content_writer *w = open_writer(t, s, "ns", "late", NULL);
    _free_ char *digest = NULL;

    assert_ok(t, content_writer_write(w, "hello", 5, &t->e));
    put(t, s, "ns", "hello");
    assert_fails(t, content_writer_commit(w, 0, NULL, &none, &digest, &t->e), ERR_ALREADY_EXISTS,
                 "content " HELLO_DIGEST ": already exists");
    content_writer_close(w);
    assert_int_equal(entries(t, "ingest"), 0);

    assert_ok(t, lease_create(t->db, "ns", "l", &none, &l, &t->e));
    assert_fails(t, content_writer_open(s, "ns", "l", "r", 0, HELLO_DIGEST, &w, &t->e),
                 ERR_ALREADY_EXISTS, "content " HELLO_DIGEST ": already exists");
    assert_ok(t, lease_list_resources(t->db, "ns", "l", &held, &t->e));
    assert_int_equal(held.n, 1);
    assert_string_equal(held.resources[0].id, HELLO_DIGEST);
    assert_true(content_writer_open(s, "ns", "none", "r", 0, NULL, &w, &t->e) < 0);
    assert_int_equal(t->e.code, ERR_NOT_FOUND);
    content_store_free(s);
}

static void leased(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    _cleanup_(lease_done) struct lease l = {};
    _cleanup_(lease_resource_list_done) struct lease_resource_list before = {}, after = {};
    struct content_writer *w = NULL;
    _free_ char *digest = NULL;

    assert_ok(t, lease_create(t->db, "ns", "l", &none, &l, &t->e));
    assert_ok(t, content_writer_open(s, "ns", "l", "r", 5, NULL, &w, &t->e));
    assert_ok(t, lease_list_resources(t->db, "ns", "l", &before, &t->e));
    assert_int_equal(before.n, 1);
    assert_string_equal(before.resources[0].type, "ingests");
    assert_ok(t, content_writer_write(w, "hello", 5, &t->e));
    assert_ok(t, content_writer_commit(w, 5, NULL, &none, &digest, &t->e));
    content_writer_close(w);
    assert_ok(t, lease_list_resources(t->db, "ns", "l", &after, &t->e));
    assert_int_equal(after.n, 1);
    assert_string_equal(after.resources[0].type, "content");
    content_store_free(s);
}

static void shared(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    _cleanup_(content_status_done) struct content_status st = {};
    struct content_writer *w;
    _free_ char *digest = NULL;

    put(t, s, "a", "hello");
    w = open_writer(t, s, "b", "r", HELLO_DIGEST);
    assert_ok(t, content_writer_status(w, &st, &t->e));
    assert_int_equal(st.offset, 5);
    assert_int_equal(st.total, 5);
    assert_int_equal(entries(t, "ingest"), 0);
    assert_ok(t, content_writer_commit(w, 5, HELLO_DIGEST, &none, &digest, &t->e));
    content_writer_close(w);
    /* The bytes live as long as one namespace has them. */
    assert_ok(t, content_delete(s, "a", HELLO_DIGEST, &t->e));
    assert_ok(t, content_sweep(s, &t->e));
    assert_int_equal(entries(t, "blobs/sha256"), 1);
    assert_ok(t, content_delete(s, "b", HELLO_DIGEST, &t->e));
    assert_ok(t, content_sweep(s, &t->e));
    assert_int_equal(entries(t, "blobs/sha256"), 0);
    assert_fails(t, content_delete(s, "b", HELLO_DIGEST, &t->e), ERR_NOT_FOUND,
                 "content digest " HELLO_DIGEST ": not found");
    content_store_free(s);
}

static void shared_and_written(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w;
    _free_ char *first = NULL;

    put(t, s, "a", "hel");
    put(t, s, "a", "xyz");
    w = open_writer(t, s, "b", "r",
                    "sha256:"
                    "3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1e77a6fa16c3c9282");
    assert_ok(t, content_writer_write(w, "", 0, &t->e));
    assert_ok(t, content_writer_truncate(w, &t->e));
    assert_ok(t, content_writer_write(w, "hello", 5, &t->e));
    assert_ok(t, content_writer_commit(w, 5, HELLO_DIGEST, &none, &first, &t->e));
    content_writer_close(w);
    content_store_free(s);
}

static void isolated(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_ISOLATED);
    _cleanup_(content_status_done) struct content_status st = {}, open = {};
    struct content_writer *w;

    put(t, s, "a", "hello");
    w = open_writer(t, s, "b", "r", HELLO_DIGEST);
    assert_ok(t, content_writer_status(w, &st, &t->e));
    assert_int_equal(st.offset, 0);
    content_writer_close(w);
    {
        _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
        assert_ok(t, db_begin(t->db, DB_WRITE, &txn, &t->e));
        assert_ok(t, labels_set(&txn, "a", "namespace", "a", "containerd.io/namespace.shareable",
                                "true", &t->e));
        assert_ok(t, db_commit(&txn, &t->e));
    }
    w = open_writer(t, s, "b", "r", HELLO_DIGEST);
    assert_ok(t, content_writer_status(w, &open, &t->e));
    assert_int_equal(open.offset, 5);
    content_writer_close(w);
    content_store_free(s);
}

static int count_status(const struct content_status *st, void *userdata)
{
    (*(int *)userdata)++;
    return 0;
}

static void abort_and_list(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w = open_writer(t, s, "ns", "r1", NULL);
    _free_ char *digest = NULL;
    int n = 0;

    content_writer_close(open_writer(t, s, "ns", "r2", NULL));
    content_writer_close(open_writer(t, s, "other", "r3", NULL));
    assert_ok(t, content_walk_statuses(s, "ns", NULL, count_status, &n, &t->e));
    assert_int_equal(n, 2);
    assert_ok(t, content_writer_write(w, "x", 1, &t->e));
    assert_ok(t, content_abort(s, "ns", "r1", &t->e));
    assert_true(content_writer_write(w, "y", 1, &t->e) < 0);
    assert_int_equal(t->e.code, ERR_NOT_FOUND);
    assert_true(content_writer_commit(w, 0, NULL, &none, &digest, &t->e) < 0);
    content_writer_close(w);
    assert_fails(t, content_abort(s, "ns", "r1", &t->e), ERR_NOT_FOUND, "reference r1: not found");
    assert_int_equal(entries(t, "ingest"), 2);
    content_store_free(s);
}

static int count_info(const struct content_info *i, void *userdata)
{
    (*(int *)userdata)++;
    return 0;
}

static void walk_and_update(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    _cleanup_(filter_freep) struct filter *filter = NULL;
    _cleanup_(strmap_done) struct strmap labels = MAP("k.with.dots=1", "other=2");
    _cleanup_(strmap_done) struct strmap removal = MAP("other=");
    _cleanup_(content_info_done) struct content_info i = {}, replaced = {}, removed = {};
    const char *const one[] = {"labels.k.with.dots"};
    const char *const gone[] = {"labels.other"};
    const char *const bad[] = {"size"};
    const char *expression = "labels.\"k.with.dots\"==1";
    char text[16];
    int n = 0;

    for (int k = 0; k < 250; k++) {
        snprintf(text, sizeof(text), "blob %d", k);
        put(t, s, "ns", text);
    }
    put(t, s, "ns", "hello");
    assert_ok(t, content_update(s, "ns", HELLO_DIGEST, &labels, one, 1, &i, &t->e));
    assert_int_equal(i.labels.n, 1);
    assert_ok(t, content_walk(s, "ns", NULL, NULL, count_info, &n, &t->e));
    assert_int_equal(n, 251);
    assert_ok(t, filter_parse(&expression, 1, &filter, &t->e));
    n = 0;
    assert_ok(t, content_walk(s, "ns", NULL, filter, count_info, &n, &t->e));
    assert_int_equal(n, 1);
    assert_ok(t, content_update(s, "ns", HELLO_DIGEST, &labels, NULL, 0, &replaced, &t->e));
    assert_int_equal(replaced.labels.n, 2);
    assert_ok(t, content_update(s, "ns", HELLO_DIGEST, &removal, gone, 1, &removed, &t->e));
    assert_int_equal(removed.labels.n, 1);
    assert_fails(
        t, content_update(s, "ns", HELLO_DIGEST, &labels, bad, 1, &i, &t->e), ERR_INVALID_ARGUMENT,
        "cannot update \"size\" field on content info \"" HELLO_DIGEST "\": invalid argument");
    content_store_free(s);
}

static void sweep(void **state)
{
    struct test_store *t = *state;
    struct content_store *s = store_of(t, CONTENT_SHARED);
    struct content_writer *w = open_writer(t, s, "ns", "live", NULL);
    char path[160];
    int fd;

    put(t, s, "ns", "hello");
    snprintf(path, sizeof(path), "%s/content/blobs/%.6s/%s", t->dir, EMPTY_DIGEST,
             &EMPTY_DIGEST[7]);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
    assert_true(fd >= 0);
    close(fd);
    snprintf(path, sizeof(path), "%s/content/ingest/deadbeef", t->dir);
    assert_int_equal(mkdir(path, 0755), 0);
    /* Off the record, as after the end of a lease, but being written: stays until it is let go. */
    {
        _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
        assert_ok(t, db_begin(t->db, DB_WRITE, &txn, &t->e));
        assert_int_equal(content_ingest_forget(&txn, "ns", "live", &t->e), 1);
        assert_ok(t, db_commit(&txn, &t->e));
    }
    assert_ok(t, content_sweep(s, &t->e));
    assert_int_equal(entries(t, "blobs/sha256"), 1);
    assert_int_equal(entries(t, "ingest"), 1);
    content_writer_close(w);
    assert_ok(t, content_sweep(s, &t->e));
    assert_int_equal(entries(t, "ingest"), 0);
    content_store_free(s);
}

/* What a daemon that is killed at some instant leaves: opened again, either all of the blob is
 * there or an ingest that goes on, and the sweep leaves nothing else. */
static void killed(void **state)
{
    struct test_store *t = *state;
    static char block[65536];
    struct content_store *s;

    t->db = db_close(t->db);
    for (int round = 0; round < 24; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (db_open(t->path, &t->db, &t->e) < 0)
                _exit(1);
            s = store_of(t, CONTENT_SHARED);
            for (int k = 0;; k++) {
                char ref[32];
                struct content_writer *w;
                snprintf(ref, sizeof(ref), "r-%d-%d", round, k);
                memset(block, round * 31 + k, sizeof(block));
                w = open_writer(t, s, "ns", ref, NULL);
                char *digest = NULL;
                if (content_writer_write(w, block, sizeof(block), &t->e) < 0)
                    _exit(1);
                content_writer_commit(w, 0, NULL, &none, &digest, &t->e);
                free(digest);
                content_writer_close(w);
            }
        }
        usleep(20000 + 3000 * (unsigned)round);
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
    }
    assert_ok(t, db_open(t->path, &t->db, &t->e));
    s = store_of(t, CONTENT_SHARED);
    assert_ok(t, content_sweep(s, &t->e));
    int records = 0, ingests = 0;
    assert_ok(t, content_walk(s, "ns", NULL, NULL, count_info, &records, &t->e));
    assert_ok(t, content_walk_statuses(s, "ns", NULL, count_status, &ingests, &t->e));
    assert_true(records > 0);
    assert_int_equal(entries(t, "blobs/sha256"), records);
    assert_true(entries(t, "ingest") <= ingests);
    content_store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(write_commit_read),
        TEST(expectations),
        TEST(resume),
        TEST(resume_behind_a_blob),
        TEST(locks),
        TEST(already_there),
        TEST(leased),
        TEST(shared),
        TEST(shared_and_written),
        TEST(isolated),
        TEST(abort_and_list),
        TEST(walk_and_update),
        TEST(sweep),
        TEST(killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

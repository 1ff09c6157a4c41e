/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int64_t count(struct test_store *t)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;

    assert_ok(t, db_begin(t->db, DB_READ, &txn, &t->e));
    assert_ok(t, db_stmt(&txn, "SELECT count(*) FROM namespaces", &stmt, &t->e));
    assert_int_equal(db_step(&txn, stmt, &t->e), 1);
    return sqlite3_column_int64(stmt, 0);
}

static int insert(struct db *db, enum db_mode mode, const char *name, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r = db_begin(db, mode, &txn, e);

    if (r >= 0)
        r = db_exec(&txn, e, "INSERT INTO namespaces (name) VALUES (?1)", 1,
                    (const char *const[]){name});
    return r < 0 ? r : db_commit(&txn, e);
}

static void commit_and_rollback(void **state)
{
    struct test_store *t = *state;
    struct stat st;

    assert_int_equal(db_mutations(t->db), 0);
    assert_ok(t, insert(t->db, DB_WRITE, "a", &t->e));
    assert_ok(t, insert(t->db, DB_WRITE_RELAXED, "b", &t->e));
    assert_ok(t, db_sync(t->db, &t->e));
    assert_ok(t, db_sync(t->db, &t->e));
    assert_int_equal(db_mutations(t->db), 2);
    {
        _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
        assert_ok(t, db_begin(t->db, DB_WRITE, &txn, &t->e));
        assert_int_equal(db_exec(&txn, &t->e, "DELETE FROM namespaces", 0, NULL), 2);
    }
    assert_int_equal(count(t), 2);
    assert_int_equal(db_mutations(t->db), 2);
    assert_true(insert(t->db, DB_WRITE, "a", &t->e) < 0);
    assert_ok(t, insert(t->db, DB_WRITE, "c", &t->e));
    assert_int_equal(count(t), 3);
    assert_int_equal(stat(t->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void reopen(struct test_store *t)
{
    t->db = db_close(t->db);
    assert_ok(t, db_open(t->path, &t->db, &t->e));
}

/* Of the pages, and a little more that stays. */
static int cache_bytes(struct test_store *t)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt;
    int bytes = 0, highest = 0;

    assert_ok(t, db_begin(t->db, DB_READ, &txn, &t->e));
    assert_ok(t, db_stmt(&txn, "SELECT 1", &stmt, &t->e));
    assert_int_equal(
        sqlite3_db_status(sqlite3_db_handle(stmt), SQLITE_DBSTATUS_CACHE_USED, &bytes, &highest, 0),
        SQLITE_OK);
    return bytes;
}

static void cache_is_given_back(void **state)
{
    struct test_store *t = *state;

    assert_ok(t, insert(t->db, DB_WRITE, "a", &t->e));
    int used = cache_bytes(t);
    db_release_memory(t->db);
    int left = cache_bytes(t);
    assert_true(left <= used - 2 * 4096);
    assert_int_equal(count(t), 1);
    assert_true(cache_bytes(t) > left);
}

static void survives_reopening(void **state)
{
    struct test_store *t = *state;
    _free_ char *wal = str_printf("%s-wal", t->path);
    struct stat st;

    assert_ok(t, insert(t->db, DB_WRITE, "a", &t->e));
    reopen(t);
    assert_int_equal(count(t), 1);
    t->db = db_close(t->db);
    /* Empty, which says that the end was clean; but it has its blocks for a start on a full disk.
     */
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_true(st.st_blocks * 512 >= 1 << 20);
}

static void values_come_back(void **state)
{
    struct test_store *t = *state;
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    const struct timespec times[] = {{0, 0}, {1, 999999999}, {-2, 5}, {1785000000, 123456789}};
    sqlite3_stmt *stmt;

    assert_ok(t, db_begin(t->db, DB_READ, &txn, &t->e));
    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        assert_ok(t, db_stmt(&txn, "SELECT ?1, ?2", &stmt, &t->e));
        assert_int_equal(db_bind_time(stmt, 1, times[i]), 0);
        assert_int_equal(db_step(&txn, stmt, &t->e), 1);
        struct timespec back = db_column_time(stmt, 0);
        assert_int_equal(back.tv_sec, times[i].tv_sec);
        assert_int_equal(back.tv_nsec, times[i].tv_nsec);
        assert_string_equal(db_column_text(stmt, 1), "");
    }
}

/* More different statements than the cache keeps, over several transactions. */
static void statements_are_forgotten(void **state)
{
    struct test_store *t = *state;
    char sql[200][32];

    for (int i = 0; i < 200; i++) {
        _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
        sqlite3_stmt *stmt;

        snprintf(sql[i], sizeof(sql[i]), "SELECT %d", i);
        assert_ok(t, db_begin(t->db, DB_READ, &txn, &t->e));
        assert_ok(t, db_stmt(&txn, sql[i], &stmt, &t->e));
        assert_int_equal(db_step(&txn, stmt, &t->e), 1);
        assert_int_equal(sqlite3_column_int(stmt, 0), i);
        assert_ok(t, db_commit(&txn, &t->e));
    }
}

/* A child commits and reports each name; whatever instant it dies at, what it reported is there. */
static void child_writes(const char *path, int fd)
{
    struct err e = ERR_INIT;
    struct db *db;

    if (db_open(path, &db, &e) < 0)
        _exit(1);
    for (int i = 0;; i++) {
        char name[32];
        snprintf(name, sizeof(name), "p%d-%d", getpid(), i);
        if (insert(db, i % 2 ? DB_WRITE_RELAXED : DB_WRITE, name, &e) < 0)
            _exit(2);
        if (write(fd, "x", 1) != 1)
            _exit(3);
    }
}

static void killed_in_the_middle(void **state)
{
    struct test_store *t = *state;
    int64_t reported = 0;

    for (int round = 0; round < 15; round++) {
        int fds[2], status;
        char bytes[4096];
        ssize_t n;
        pid_t pid;

        t->db = db_close(t->db);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0)
            child_writes(t->path, fds[1]);
        close(fds[1]);
        usleep((useconds_t)(20000 + round * 3000));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while ((n = read(fds[0], bytes, sizeof(bytes))) > 0)
            reported += n;
        close(fds[0]);
        assert_ok(t, db_open(t->path, &t->db, &t->e));
        int64_t there = count(t);
        /* The last commit of a round may have gone unreported. */
        assert_true(there >= reported && there <= reported + 1);
        reported = there;
    }
    assert_true(reported > 0);
}

static void second_owner_is_refused(void **state)
{
    struct test_store *t = *state;
    char sentence[256];
    int status;
    pid_t pid;

    snprintf(sentence, sizeof(sentence),
             "metadata database %s is in use by another process: unavailable", t->path);
    pid = fork();
    if (pid == 0) {
        struct err e = ERR_INIT;
        struct db *db;
        _exit(db_open(t->path, &db, &e) < 0 && str_eq(e.msg, sentence) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void newer_schema_is_refused(void **state)
{
    struct test_store *t = *state;
    char sentence[256];
    sqlite3 *raw;

    t->db = db_close(t->db);
    assert_int_equal(sqlite3_open(t->path, &raw), SQLITE_OK);
    assert_int_equal(sqlite3_exec(raw, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(raw);
    snprintf(sentence, sizeof(sentence),
             "metadata database %s has schema version 99, this version knows 1: start the newer "
             "version that wrote it",
             t->path);
    assert_fails(t, db_open(t->path, &t->db, &t->e), ERR_FAILED_PRECONDITION, sentence);
    assert_null(t->db);
}

static void foreign_database_is_refused(void **state)
{
    struct test_store *t = *state;
    char sentence[256];
    sqlite3 *raw;

    t->db = db_close(t->db);
    assert_int_equal(unlink(t->path), 0);
    assert_int_equal(sqlite3_open(t->path, &raw), SQLITE_OK);
    assert_int_equal(sqlite3_exec(raw, "CREATE TABLE theirs (a)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(raw);
    snprintf(sentence, sizeof(sentence), "%s is a database of another program: move it away",
             t->path);
    assert_fails(t, db_open(t->path, &t->db, &t->e), ERR_FAILED_PRECONDITION, sentence);
}

static void write_file(const char *path, const void *bytes, size_t n, off_t at)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, at), n);
    close(fd);
}

static void what_is_no_database_is_refused(void **state)
{
    struct test_store *t = *state;
    char text[8192];

    t->db = db_close(t->db);
    memset(text, 'x', sizeof(text));
    write_file(t->path, text, sizeof(text), 0);
    assert_true(db_open(t->path, &t->db, &t->e) < 0);
    assert_int_equal(t->e.code, ERR_DATA_LOSS);
    assert_non_null(strstr(t->e.msg, "is damaged"));
    assert_non_null(strstr(t->e.msg, "move it away"));

    assert_int_equal(unlink(t->path), 0);
    assert_int_equal(mkdir(t->path, 0700), 0);
    assert_true(db_open(t->path, &t->db, &t->e) < 0);
    assert_int_equal(rmdir(t->path), 0);

    assert_int_equal(mkfifo(t->path, 0600), 0);
    assert_true(db_open(t->path, &t->db, &t->e) < 0);
    assert_non_null(strstr(t->e.msg, "is not a regular file"));
    assert_int_equal(unlink(t->path), 0);

    assert_int_equal(symlink("/etc/passwd", t->path), 0);
    assert_true(db_open(t->path, &t->db, &t->e) < 0);
    assert_int_equal(unlink(t->path), 0);

    /* Nothing at all is a new database. */
    write_file(t->path, "", 0, 0);
    assert_ok(t, db_open(t->path, &t->db, &t->e));
    assert_int_equal(count(t), 0);
}

/* Bits flipped anywhere: an error or an answer, never a crash; the error is DataLoss or names the
 * problem. */
static void damage_is_survived(void **state)
{
    struct test_store *t = *state;
    struct stat st;
    unsigned seed = 7;

    for (int i = 0; i < 50; i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%d", i);
        assert_ok(t, insert(t->db, DB_WRITE_RELAXED, name, &t->e));
    }
    t->db = db_close(t->db);
    assert_int_equal(stat(t->path, &st), 0);
    _free_ char *good = malloc((size_t)st.st_size);
    int fd = open(t->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fs_read_all(fd, good, (size_t)st.st_size), st.st_size);
    close(fd);
    for (int round = 0; round < 200; round++) {
        long at = rand_r(&seed) % (round < 50 ? 200 : st.st_size);
        char byte = (char)(good[at] ^ (1 << rand_r(&seed) % 8));

        write_file(t->path, &byte, 1, at);
        if (db_open(t->path, &t->db, &t->e) >= 0) {
            if (insert(t->db, DB_WRITE, "new", &t->e) < 0)
                assert_true(*t->e.msg);
            t->db = db_close(t->db);
        }
        assert_int_equal(unlink(t->path), 0);
        write_file(t->path, good, (size_t)st.st_size, 0);
    }
}

/* In a mount namespace of its own with a disk of 2.5 MB: full, then still good for removals, then
 * for all. */
static void child_fills_disk(struct test_store *t)
{
    char name[3000];
    struct err e = ERR_INIT;
    struct db *db;
    int64_t n = 0, there;
    int r, fd;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", t->dir, "tmpfs", 0, "size=2500k") < 0)
        _exit(77);
    if (db_open(t->path, &db, &e) < 0)
        _exit(1);
    t->db = db;
    _free_ char *ballast = str_printf("%s/ballast", t->dir);
    fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    memset(name, 'x', sizeof(name));
    while (write(fd, name, sizeof(name)) > 0)
        ;
    close(fd);
    name[sizeof(name) - 1] = '\0';
    do {
        snprintf(name, 16, "%015u", (unsigned)n);
        name[15] = 'x';
        r = insert(db, n % 2 ? DB_WRITE_RELAXED : DB_WRITE, name, &e);
        n += r >= 0;
    } while (r >= 0 && n < 10000);
    if (r >= 0 || e.code != ERR_RESOURCE_EXHAUSTED || !strstr(e.msg, "no space left on device"))
        _exit(2);
    there = count(t);
    if (there != n)
        _exit(3);
    unlink(ballast);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "after %d", i);
        if (insert(db, DB_WRITE, name, &e) < 0)
            _exit(4);
    }
    db_close(db);
    _exit(db_open(t->path, &t->db, &e) < 0 || count(t) != n + 20 ? 5 : 0);
}

static int remove_name(struct db *db, const char *name, struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    int r = db_begin(db, DB_REMOVE, &txn, e);

    if (r >= 0)
        r = db_exec(&txn, e, "DELETE FROM namespaces WHERE name = ?1", 1,
                    (const char *const[]){name});
    return r < 0 ? r : db_commit(&txn, e);
}

/* Records are added until no more can be; then all of them go, although the disk is as full as
 * before. `reopened`: by a database that was opened on the full disk. */
static void removes_on_full_disk(struct test_store *t, bool reopened)
{
    char name[600];
    struct err e = ERR_INIT;
    size_t n = 0, refused = 0;
    int fd;

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", t->dir, "tmpfs", 0, "size=8m") < 0)
        _exit(77);
    if (db_open(t->path, &t->db, &e) < 0)
        _exit(1);
    memset(name, 'x', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    for (; n < 1000; n++) {
        snprintf(name, 16, "%015zu", n);
        name[15] = 'x';
        if (insert(t->db, DB_WRITE_RELAXED, name, &e) < 0)
            _exit(2);
    }
    _free_ char *ballast = str_printf("%s/ballast", t->dir);
    fd = open(ballast, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, name, sizeof(name)) > 0)
        ;
    for (; n < 100000 && refused < 3; n++) {
        snprintf(name, 16, "%015zu", n);
        name[15] = 'x';
        refused += insert(t->db, DB_WRITE, name, &e) < 0;
    }
    if (refused < 3 || e.code != ERR_RESOURCE_EXHAUSTED)
        _exit(3);
    if (reopened) {
        db_close(t->db);
        if (db_open(t->path, &t->db, &e) < 0)
            _exit(4);
    }
    for (size_t first = 0; first < 3; first++) {
        for (size_t i = first; i < n; i += 3) {
            snprintf(name, 16, "%015zu", i);
            name[15] = 'x';
            if (remove_name(t->db, name, &e) < 0)
                _exit(5);
        }
    }
    _exit(count(t) == 0 ? 0 : 6);
}

static void child_removes_on_full_disk(struct test_store *t)
{
    removes_on_full_disk(t, false);
}

static void child_reopens_on_full_disk(struct test_store *t)
{
    removes_on_full_disk(t, true);
}

static void in_child(struct test_store *t, void (*fn)(struct test_store *t))
{
    int status;
    pid_t pid;

    t->db = db_close(t->db);
    pid = fork();
    if (pid == 0)
        fn(t);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

static void full_disk(void **state)
{
    in_child(*state, child_fills_disk);
}

static void full_disk_still_removes(void **state)
{
    in_child(*state, child_removes_on_full_disk);
}

static void full_disk_removes_when_reopened(void **state)
{
    in_child(*state, child_reopens_on_full_disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(commit_and_rollback),         TEST(cache_is_given_back),
        TEST(survives_reopening),          TEST(values_come_back),
        TEST(statements_are_forgotten),    TEST(killed_in_the_middle),
        TEST(second_owner_is_refused),     TEST(newer_schema_is_refused),
        TEST(foreign_database_is_refused), TEST(what_is_no_database_is_refused),
        TEST(damage_is_survived),          TEST(full_disk),
        TEST(full_disk_still_removes),     TEST(full_disk_removes_when_reopened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

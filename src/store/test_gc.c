/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector against a small model of what must live: random worlds of objects and references,
 * and after each run the same set on both sides. The model walks references again and again until
 * nothing changes, which is slow and hard to get wrong.
 */
#include "store/test_store.h"

#include <pthread.h>

#include "store/containers.h"
#include "store/gc.h"
#include "store/images.h"
#include "store/labels.h"
#include "store/leases.h"

static const struct gc_options options = {.pause_threshold = 0.02, .mutation_threshold = 100};

static int64_t number(struct test_store *t, const char *sql)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    sqlite3_stmt *stmt = NULL;
    int64_t n = -1;

    /* Not by the cache, which wants literals. */
    assert_ok(t, db_begin(t->db, DB_READ, &txn, &t->e));
    assert_ok(t, db_stmt(&txn, sql, &stmt, &t->e));
    if (db_step(&txn, stmt, &t->e) == 1)
        n = sqlite3_column_int64(stmt, 0);
    return n;
}

static void run(struct test_store *t, struct gc_stats *ret)
{
    struct gc *gc = NULL;

    assert_ok(t, gc_new(NULL, NULL, t->db, NULL, NULL, &options, &gc, &t->e));
    assert_ok(t, gc_run(gc, ret, &t->e));
    gc_free(gc);
}

static void execute(struct test_store *t, const char *sql)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;

    assert_ok(t, db_begin(t->db, DB_WRITE_RELAXED, &txn, &t->e));
    assert_ok(t, db_exec(&txn, &t->e, sql, 0, NULL));
    assert_ok(t, db_commit(&txn, &t->e));
}

static void label(struct test_store *t, const char *ns, const char *kind, const char *object,
                  const char *key, const char *value)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;

    assert_ok(t, db_begin(t->db, DB_WRITE_RELAXED, &txn, &t->e));
    assert_ok(t, labels_set(&txn, ns, kind, object, key, value, &t->e));
    assert_ok(t, db_commit(&txn, &t->e));
}

static void nothing_to_do(void **state)
{
    struct test_store *t = *state;
    struct gc_stats stats;
    uint64_t before = db_mutations(t->db);

    run(t, &stats);
    assert_int_equal(stats.content + stats.ingests + stats.snapshots + stats.leases, 0);
    assert_int_equal(db_mutations(t->db), before);
}

/* An image as clients label it: manifest -> config, layers; config -> snapshot -> parents. */
static void image_keeps_what_it_needs(void **state)
{
    struct test_store *t = *state;
    struct image image = {.name = (char *)"i",
                          .target = {(char *)"type", (char *)DIGEST("a"), 1, {}}};
    struct image back = {};
    struct gc_stats stats;

    execute(t, "INSERT INTO content VALUES ('ns', '" DIGEST(
                   "a") "', 1, 0, 0), "
                        "('ns', '" DIGEST("b") "', 1, 0, 0), ('ns', '" DIGEST(
                            "c") "', 1, 0, 0), "
                                 "('ns', '" DIGEST("d") "', 1, 0, 0), ('other', '" DIGEST(
                                     "b") "', 1, 0, 0)");
    execute(t,
            "INSERT INTO snapshots (dir, ns, snapshotter, name, parent, kind, created_at, "
            "updated_at) VALUES (1, 'ns', 'overlayfs', 'low', NULL, 3, 0, 0), "
            "(2, 'ns', 'overlayfs', 'top', 1, 3, 0, 0), (3, 'ns', 'overlayfs', 'rw', 2, 2, 0, 0), "
            "(4, 'ns', 'native', 'top', NULL, 3, 0, 0)");
    label(t, "ns", "content", DIGEST("a"), "containerd.io/gc.ref.content.config", DIGEST("b"));
    label(t, "ns", "content", DIGEST("a"), "containerd.io/gc.ref.content.l.0", DIGEST("c"));
    label(t, "ns", "content", DIGEST("a"), "containerd.io/gc.ref.contents", DIGEST("d"));
    label(t, "ns", "content", DIGEST("b"), "containerd.io/gc.ref.snapshot.overlayfs", "top");
    label(t, "ns", "snapshot/native", "top", "x", "y");
    assert_ok(t, image_create(t->db, "ns", "", &image, (struct timespec){}, &back, &t->e));
    image_done(&back);

    run(t, &stats);
    assert_int_equal(stats.content, 2);   /* d, and b of the other namespace */
    assert_int_equal(stats.snapshots, 2); /* the active one nobody holds, and native's */
    assert_int_equal(number(t, "SELECT count(*) FROM labels WHERE kind = 'snapshot/native'"), 0);
    run(t, &stats);
    assert_int_equal(stats.content + stats.snapshots, 0);
    assert_ok(t, image_delete(t->db, "ns", "i", "", &t->e));
    run(t, &stats);
    assert_int_equal(stats.content, 3);
    assert_int_equal(stats.snapshots, 2);
    assert_int_equal(number(t, "SELECT count(*) FROM labels"), 0);
}

static void leases_hold_until_they_expire(void **state)
{
    struct test_store *t = *state;
    _cleanup_(strmap_done) struct strmap future =
                                             MAP("containerd.io/gc.expire=2999-01-01T00:00:00Z"),
                                         past = MAP("containerd.io/gc.expire=2001-01-01T00:00:00Z"),
                                         odd = MAP("containerd.io/gc.expire=tomorrow");
    const struct {
        const char *id;
        const struct strmap *labels;
    } leases[] = {{"future", &future}, {"past", &past}, {"odd", &odd}};
    struct gc_stats stats;

    for (size_t i = 0; i < ARRAY_SIZE(leases); i++) {
        _cleanup_(lease_done) struct lease l = {};
        assert_ok(t, lease_create(t->db, "ns", leases[i].id, leases[i].labels, &l, &t->e));
    }
    execute(t, "INSERT INTO ingests VALUES ('ns', 'r1', 'b1', '', 0), ('ns', 'r2', 'b2', '', 0), "
               "('ns', 'r3', 'b3', '', 9000000000000000000)");
    assert_ok(t, lease_add_resource(t->db, "ns", "future", "ingests", "r1", &t->e));
    assert_ok(t, lease_add_resource(t->db, "ns", "past", "ingests", "r2", &t->e));
    run(t, &stats);
    assert_int_equal(stats.leases, 1);
    assert_int_equal(stats.ingests, 1);
    assert_int_equal(number(t, "SELECT count(*) FROM ingests WHERE ref = 'r2'"), 0);
    assert_int_equal(number(t, "SELECT count(*) FROM labels WHERE object = 'past'"), 0);
}

/* 100,000 blobs in one cycle, 100,000 references to one blob, dangling and self references. */
static void many_references(void **state)
{
    struct test_store *t = *state;
    struct gc_stats stats;

    execute(t, "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
               "INSERT INTO content SELECT 'ns', 'd' || i, 1, 0, 0 FROM n");
    execute(
        t, "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
           "INSERT INTO labels SELECT 'ns', 'content', 'd' || i, 'containerd.io/gc.ref.content.n', "
           "'d' || ((i + 1) % 100000) FROM n");
    execute(
        t, "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
           "INSERT INTO labels SELECT 'ns', 'content', 'd' || i, 'containerd.io/gc.ref.content.h', "
           "'d0' FROM n");
    execute(t,
            "INSERT INTO labels SELECT 'ns', 'content', object, 'containerd.io/gc.ref.content/s', "
            "object FROM labels WHERE key = 'containerd.io/gc.ref.content.h'");
    execute(
        t,
        "INSERT INTO labels VALUES ('ns', 'content', 'd5', 'containerd.io/gc.ref.content', 'no'), "
        "('ns', 'content', 'd7', 'containerd.io/gc.root', 'x')");
    run(t, &stats);
    assert_int_equal(stats.content, 0);
    execute(t, "DELETE FROM labels WHERE key = 'containerd.io/gc.root'");
    run(t, &stats);
    assert_int_equal(stats.content, 100000);
}

/* The model. */
enum {
    N_CONTENT = 24,
    N_SNAPSHOTS = 16,
    N_LEASES = 6,
    N_NODES = N_CONTENT + N_SNAPSHOTS + N_LEASES
};

struct model {
    bool refs[N_NODES][N_NODES];
    int parent[N_SNAPSHOTS]; /* -1: none */
    bool root[N_NODES];
    bool held[N_LEASES][N_NODES], flat[N_LEASES], expired[N_LEASES];
    bool full[N_NODES], kept[N_NODES];
};

static bool spread(struct model *m)
{
    bool changed = false;

    for (int a = 0; a < N_NODES; a++)
        for (int b = 0; b < N_CONTENT + N_SNAPSHOTS; b++) {
            bool is_parent = a >= N_CONTENT && a < N_CONTENT + N_SNAPSHOTS && b >= N_CONTENT &&
                             m->parent[a - N_CONTENT] == b - N_CONTENT;
            if (m->full[a] && (m->refs[a][b] || is_parent) && !m->full[b])
                changed = m->full[b] = true;
            if (m->kept[a] && is_parent && !m->kept[b])
                changed = m->kept[b] = true;
        }
    return changed;
}

static void model_collect(struct model *m)
{
    memset(m->full, 0, sizeof(m->full));
    memset(m->kept, 0, sizeof(m->kept));
    for (int i = 0; i < N_NODES; i++)
        m->full[i] = m->root[i];
    for (int l = 0; l < N_LEASES; l++) {
        if (m->expired[l])
            continue;
        m->kept[N_CONTENT + N_SNAPSHOTS + l] = true;
        for (int i = 0; i < N_CONTENT + N_SNAPSHOTS; i++)
            if (m->held[l][i])
                *(m->flat[l] ? &m->kept[i] : &m->full[i]) = true;
    }
    while (spread(m))
        ;
    for (int i = 0; i < N_NODES; i++)
        m->kept[i] |= m->full[i];
}

static void name_of(int node, char out[16])
{
    snprintf(out, 16, "%c%d", node < N_CONTENT ? 'c' : 's', node);
}

static void put_label(struct db_txn *txn, struct test_store *t, int node, const char *key,
                      const char *value)
{
    char name[16];

    name_of(node, name);
    assert_ok(t, labels_set(txn, "ns", node < N_CONTENT ? "content" : "snapshot/ss", name, key,
                            value, &t->e));
}

static void put_references(struct db_txn *txn, struct test_store *t, const struct model *m, int a)
{
    for (int b = 0; b < N_CONTENT + N_SNAPSHOTS; b++) {
        char key[64], value[16];

        if (!m->refs[a][b])
            continue;
        name_of(b, value);
        snprintf(key, sizeof(key),
                 b < N_CONTENT ? "containerd.io/gc.ref.content%c%d"
                               : "containerd.io/gc.ref.snapshot.ss%c%d",
                 b < N_CONTENT && b % 2 ? '.' : '/', b);
        put_label(txn, t, a, key, value);
    }
    if (m->root[a])
        put_label(txn, t, a, "containerd.io/gc.root", "yes");
}

static void put_leases(struct db_txn *txn, struct test_store *t, const struct model *m)
{
    for (int l = 0; l < N_LEASES; l++) {
        char id[16], name[16];

        snprintf(id, sizeof(id), "l%d", l);
        assert_ok(t, db_exec(txn, &t->e, "INSERT INTO leases VALUES ('ns', ?1, 0)", 1,
                             (const char *const[]){id}));
        if (m->flat[l])
            assert_ok(t, labels_set(txn, "ns", "lease", id, "containerd.io/gc.flat", "1", &t->e));
        assert_ok(t,
                  labels_set(txn, "ns", "lease", id, "containerd.io/gc.expire",
                             m->expired[l] ? "2001-01-01T00:00:00Z" : "2999-01-01T00:00:00+01:00",
                             &t->e));
        for (int i = 0; i < N_CONTENT + N_SNAPSHOTS; i++) {
            name_of(i, name);
            if (m->held[l][i])
                assert_ok(t, lease_attach(txn, "ns", id, i < N_CONTENT ? "content" : "snapshots/ss",
                                          name, &t->e));
        }
    }
}

static void put_world(struct test_store *t, const struct model *m)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    char name[16], dir[16], parent[16];

    assert_ok(t, db_begin(t->db, DB_WRITE_RELAXED, &txn, &t->e));
    for (int i = 0; i < N_CONTENT + N_SNAPSHOTS; i++) {
        name_of(i, name);
        if (i < N_CONTENT) {
            assert_ok(t, db_exec(&txn, &t->e, "INSERT INTO content VALUES ('ns', ?1, 1, 0, 0)", 1,
                                 (const char *const[]){name}));
        } else {
            int p = m->parent[i - N_CONTENT];
            snprintf(dir, sizeof(dir), "%d", i + 1);
            snprintf(parent, sizeof(parent), "%d", N_CONTENT + p + 1);
            assert_ok(
                t, db_exec(&txn, &t->e,
                           "INSERT INTO snapshots (dir, ns, snapshotter, name, parent, kind, "
                           "created_at, updated_at) VALUES (CAST(?1 AS INTEGER), 'ns', 'ss', ?2, "
                           "CAST(?3 AS INTEGER), 3, 0, 0)",
                           3, (const char *const[]){dir, name, p < 0 ? NULL : parent}));
        }
        put_references(&txn, t, m, i);
    }
    put_leases(&txn, t, m);
    assert_ok(t, db_commit(&txn, &t->e));
}

static bool is_there(struct test_store *t, int node)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    char name[16];
    int r;

    assert_ok(t, db_begin(t->db, DB_READ, &txn, &t->e));
    if (node >= N_CONTENT + N_SNAPSHOTS)
        snprintf(name, sizeof(name), "l%d", node - N_CONTENT - N_SNAPSHOTS);
    else
        name_of(node, name);
    r = db_exists(
        &txn, &t->e,
        "SELECT 1 FROM (SELECT digest AS n FROM content UNION ALL SELECT name FROM snapshots "
        "UNION ALL SELECT id FROM leases) WHERE n = ?1",
        1, (const char *const[]){name});
    assert_true(r >= 0);
    return r;
}

static void make_world(struct model *m, unsigned *seed)
{
    int density = 1 + rand_r(seed) % 6;

    *m = (struct model){};
    for (int a = 0; a < N_CONTENT + N_SNAPSHOTS; a++) {
        for (int b = 0; b < N_CONTENT + N_SNAPSHOTS; b++)
            m->refs[a][b] = rand_r(seed) % 100 < density;
        m->root[a] = rand_r(seed) % 100 < 6;
    }
    for (int s = 0; s < N_SNAPSHOTS; s++)
        m->parent[s] = s && rand_r(seed) % 3 ? rand_r(seed) % s : -1;
    for (int l = 0; l < N_LEASES; l++) {
        m->flat[l] = rand_r(seed) % 2;
        m->expired[l] = rand_r(seed) % 3 == 0;
        for (int i = 0; i < N_CONTENT + N_SNAPSHOTS; i++)
            m->held[l][i] = rand_r(seed) % 100 < 5;
    }
}

static void agrees_with_the_model(void **state)
{
    struct test_store *t = *state;
    unsigned seed = 20260101;

    for (int round = 0; round < 150; round++) {
        struct model m;
        struct gc_stats stats;
        size_t kept = 0;

        make_world(&m, &seed);
        put_world(t, &m);
        model_collect(&m);
        run(t, &stats);
        for (int i = 0; i < N_NODES; i++) {
            if (is_there(t, i) != m.kept[i])
                fail_msg("round %d, node %d: must be %s", round, i, m.kept[i] ? "kept" : "removed");
            kept += m.kept[i];
        }
        assert_int_equal(kept + stats.content + stats.snapshots + stats.leases, N_NODES);
        execute(t, "DELETE FROM content");
        execute(t, "DELETE FROM snapshots");
        execute(t, "DELETE FROM leases");
        execute(t, "DELETE FROM lease_resources");
        execute(t, "DELETE FROM labels");
    }
}

static void *run_in_thread(void *arg)
{
    struct err e = ERR_INIT;
    int r = gc_run(arg, NULL, &e);

    return (void *)(intptr_t)r;
}

static void runs_are_serialized(void **state)
{
    struct test_store *t = *state;
    struct gc *gc = NULL;
    pthread_t threads[16];
    void *r;

    assert_ok(t, gc_new(NULL, NULL, t->db, NULL, NULL, &options, &gc, &t->e));
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_in_thread, gc), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        pthread_join(threads[i], &r);
        assert_null(r);
    }
    gc_free(gc);
}

/* Turns of the loop until the query answers what it must, or for at most five seconds. */
static bool loop_until(struct test_store *t, struct event_loop *loop, const char *sql,
                       int64_t wanted)
{
    uint64_t end = clock_monotonic_ms() + 5000;

    while (clock_monotonic_ms() < end) {
        assert_int_equal(event_loop_turn(loop, 10), 0);
        if (number(t, sql) == wanted)
            return true;
    }
    return false;
}

static void schedule(void **state)
{
    static const char content[] = "SELECT count(*) FROM content";
    static const char leases[] = "SELECT count(*) FROM leases";
    struct test_store *t = *state;
    const struct gc_options fast = {.pause_threshold = 0.5, .startup_delay_ms = 20};
    struct event_loop loop;
    struct workq *pool;
    struct gc *gc = NULL;
    char expiry[CLOCK_RFC3339_MAX];
    struct timespec at;

    assert_int_equal(event_loop_init(&loop), 0);
    assert_int_equal(event_loop_enable_posts(&loop), 0);
    assert_int_equal(workq_new(2, &pool), 0);
    execute(t, "INSERT INTO content VALUES ('ns', 'a', 1, 0, 0)");
    assert_ok(t, gc_new(&loop, pool, t->db, NULL, NULL, &fast, &gc, &t->e));
    assert_true(loop_until(t, &loop, content, 0)); /* at the start */
    execute(t, "INSERT INTO content VALUES ('ns', 'b', 1, 0, 0)");
    gc_notify_deletion(gc);
    assert_true(loop_until(t, &loop, content, 0)); /* after a deletion */

    /* On an idle daemon, a lease that expires takes what it held with it. */
    _cleanup_(strmap_done) struct strmap labels = {};
    _cleanup_(lease_done) struct lease l = {};
    at = clock_realtime();
    at.tv_nsec += 300000000;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    clock_rfc3339(at, expiry);
    assert_int_equal(strmap_set(&labels, "containerd.io/gc.expire", expiry), 0);
    assert_ok(t, lease_create(t->db, "ns", "l", &labels, &l, &t->e));
    gc_notify_expiry(gc, at);
    assert_true(loop_until(t, &loop, leases, 0));
    workq_free(pool);
    gc_free(gc);
    event_loop_done(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_to_do),   TEST(image_keeps_what_it_needs), TEST(leases_hold_until_they_expire),
        TEST(many_references), TEST(agrees_with_the_model),     TEST(runs_are_serialized),
        TEST(schedule),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

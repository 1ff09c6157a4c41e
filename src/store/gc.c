/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run: load and mark and remove records in one transaction; make that durable; sweep files by
 * comparing disk with records. Files go last and only after the sync, so a power cut cannot bring
 * back the record of something whose files are gone; a crash in between leaves files without
 * records, which the next sweep removes.
 *
 * The schedule: a run pauses writers for a time that is measured, and runs are kept so far apart
 * that the pauses stay below pause_threshold of all time. Nothing polls: a timer is armed only
 * while a run is due or something has an expiry.
 */
#include "store/gc.h"

#include <malloc.h>
#include <pthread.h>

#include "base/log.h"
#include "base/str.h"
#include "store/content.h"
#include "store/gc_graph.h"
#include "store/labels.h"
#include "store/snapshots.h"

#define PAUSE_MIN_US 5000        /* what a short run counts as, so that runs do not crowd */
#define TIMER_MAX_MS (60 * 1000) /* real time may jump: expiries are looked at this often */
#define NEVER UINT64_MAX

struct gc {
    struct event_loop *loop;
    struct workq *pool;
    struct db *db;
    struct content_store *content;
    struct snapshotters *snapshotters;
    struct gc_options options;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t ended;
    uint64_t started, finished; /* runs */
    bool running;
    int result; /* of the last run */
    struct err error;
    struct gc_stats stats;

    int64_t deletions, mutations; /* since the last run began */
    uint64_t pause_sum_us;
    uint64_t last_end_ms;
    uint64_t due_ms;             /* NEVER: no run is due */
    struct timespec expiry;      /* {0, 0}: none */
    struct timespec expiry_told; /* the earliest that came while a run may have looked already */
    bool posted, job_running;    /* post and job are in use */
    bool stopped;

    /* The loop's. */
    struct event_post post;
    struct event_timer timer;
    struct workq_job job;
};

static bool is_after(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* Of two times, {0, 0} being none. */
static struct timespec earlier(struct timespec a, struct timespec b)
{
    return !a.tv_sec || (b.tv_sec && is_after(a, b)) ? b : a;
}

static int remove_object(struct db_txn *txn, const char *table_sql, const char *ns,
                         const char *kind, const char *id, struct err *e)
{
    int r = db_exec(txn, e, table_sql, 2, (const char *const[]){ns, id});

    return r < 0 || !kind ? r : labels_remove(txn, ns, kind, id, e);
}

static int remove_lease(struct db_txn *txn, const char *ns, const char *id, struct err *e)
{
    int r = db_exec(txn, e, "DELETE FROM lease_resources WHERE ns = ?1 AND lease = ?2", 2,
                    (const char *const[]){ns, id});

    return r < 0 ? r
                 : remove_object(txn, "DELETE FROM leases WHERE ns = ?1 AND id = ?2", ns, "lease",
                                 id, e);
}

static int remove_snapshot(struct db_txn *txn, const char *ns, char *id, int64_t dir, struct err *e)
{
    _free_ char *kind = NULL;
    sqlite3_stmt *stmt;
    char *name = strchr(id, '\n');
    int r;

    *name++ = '\0';
    kind = str_printf("snapshot/%s", id);
    if (!kind)
        return err_oom(e);
    r = db_stmt(txn, "DELETE FROM snapshots WHERE dir = ?1", &stmt, e);
    if (r < 0)
        return r;
    sqlite3_bind_int64(stmt, 1, dir);
    r = db_step(txn, stmt, e);
    return r < 0 ? r : labels_remove(txn, ns, kind, name, e);
}

/* The record of an unreached node. Its key is taken apart. */
static int remove_node(struct db_txn *txn, struct gc_node *node, struct gc_stats *stats,
                       struct err *e)
{
    char *ns = strchr(node->key, '\n') + 1;
    char *id = strchr(ns, '\n');

    *id++ = '\0';
    switch (node->kind) {
    case GC_CONTENT:
        stats->content++;
        return remove_object(txn, "DELETE FROM content WHERE ns = ?1 AND digest = ?2", ns,
                             "content", id, e);
    case GC_INGEST:
        stats->ingests++;
        return remove_object(txn, "DELETE FROM ingests WHERE ns = ?1 AND ref = ?2", ns, NULL, id,
                             e);
    case GC_SNAPSHOT:
        stats->snapshots++;
        return remove_snapshot(txn, ns, id, node->dir, e);
    case GC_LEASE:
        stats->leases++;
        return remove_lease(txn, ns, id, e);
    }
    return 0;
}

static int remove_unreached(struct db_txn *txn, struct gc_graph *g, struct gc_stats *stats,
                            struct err *e)
{
    /* Rows of parents may go before those of their children. */
    int r = db_exec(txn, e, "PRAGMA defer_foreign_keys = ON", 0, NULL);

    for (size_t i = 0; r >= 0 && i < g->n_nodes; i++)
        if (g->nodes[i].reach == GC_UNREACHED)
            r = remove_node(txn, &g->nodes[i], stats, e);
    return r;
}

static int collect_records(struct gc *gc, struct gc_stats *stats, struct timespec *ret_expiry,
                           struct err *e)
{
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    _cleanup_(gc_graph_done) struct gc_graph graph = {};
    uint64_t start = 0;
    int r;

    r = db_begin(gc->db, DB_REMOVE, &txn, e);
    if (r < 0)
        return r;
    start = clock_monotonic_us();
    if ((r = gc_graph_load(&graph, &txn, clock_realtime(), e)) < 0 ||
        (r = gc_graph_mark(&graph, e)) < 0 || (r = remove_unreached(&txn, &graph, stats, e)) < 0 ||
        (r = db_commit(&txn, e)) < 0)
        return r;
    stats->pause_us = clock_monotonic_us() - start;
    *ret_expiry = graph.next_expiry;
    return 0;
}

/* Both sweeps are tried; the first error is reported. */
static int sweep_files(struct gc *gc, struct err *e)
{
    struct err second = ERR_INIT;
    int r = 0, s = 0;

    if (gc->snapshotters)
        r = snapshotters_sweep(gc->snapshotters, e);
    if (gc->content)
        s = content_sweep(gc->content, r < 0 ? &second : e);
    if (r < 0 && s < 0)
        log_warn("sweep content: %s", second.msg);
    return r < 0 ? r : s;
}

static int collect(struct gc *gc, struct gc_stats *stats, struct timespec *ret_expiry,
                   struct err *e)
{
    int r;

    if ((r = collect_records(gc, stats, ret_expiry, e)) < 0 || (r = db_sync(gc->db, e)) < 0)
        return r;
    r = sweep_files(gc, e);
    /* A run follows a burst of work: what that left on the heap goes back with the graph. */
    malloc_trim(0);
    log_debug("garbage collected: %zu blobs, %zu ingests, %zu snapshots, %zu leases in %llu us",
              stats->content, stats->ingests, stats->snapshots, stats->leases,
              (unsigned long long)stats->pause_us);
    return r;
}

/* Between two runs, so that the mean pause is pause_threshold of the time. [lock held] */
static uint64_t interval_ms(const struct gc *gc)
{
    double mean = gc->finished ? (double)gc->pause_sum_us / (double)gc->finished : PAUSE_MIN_US;

    return (uint64_t)((mean / gc->options.pause_threshold - mean) / 1000);
}

static void arm(struct gc *gc);

static void on_post(struct event_post *post)
{
    struct gc *gc = container_of(post, struct gc, post);

    pthread_mutex_lock(&gc->lock);
    gc->posted = false;
    arm(gc);
    pthread_mutex_unlock(&gc->lock);
}

/* Has the loop look at due_ms and expiry again. [lock held] */
static void wake_loop(struct gc *gc)
{
    if (gc->posted || !gc->loop)
        return;
    gc->posted = true;
    event_loop_post(gc->loop, &gc->post, on_post);
}

/* A run becomes due at the given time, or stays so earlier. [lock held] */
static void make_due(struct gc *gc, uint64_t at_ms)
{
    if (at_ms >= gc->due_ms)
        return;
    gc->due_ms = at_ms;
    wake_loop(gc);
}

/* A threshold was passed: as soon as the last pause allows. [lock held] */
static void make_due_soon(struct gc *gc)
{
    uint64_t earliest = gc->last_end_ms ? gc->last_end_ms + interval_ms(gc) : 0;

    make_due(gc, MAX_OF(clock_monotonic_ms() + gc->options.schedule_delay_ms, earliest));
}

static void begin_run(struct gc *gc)
{
    gc->running = true;
    gc->started++;
    gc->deletions = gc->mutations = 0;
    gc->due_ms = NEVER;
    gc->expiry_told = (struct timespec){};
}

static void end_run(struct gc *gc, int r, const struct err *error, const struct gc_stats *stats,
                    struct timespec expiry)
{
    gc->running = false;
    gc->finished++;
    gc->result = r;
    gc->error = *error;
    gc->stats = *stats;
    gc->pause_sum_us += MAX_OF(stats->pause_us, (uint64_t)PAUSE_MIN_US);
    gc->last_end_ms = clock_monotonic_ms();
    if (r >= 0 || expiry.tv_sec)
        gc->expiry = earlier(expiry, gc->expiry_told);
    wake_loop(gc);
    pthread_cond_broadcast(&gc->ended);
}

int gc_run(struct gc *gc, struct gc_stats *ret, struct err *e)
{
    struct err error = ERR_INIT;
    struct gc_stats stats = {};
    struct timespec expiry = {};
    int r;

    pthread_mutex_lock(&gc->lock);
    uint64_t wanted = gc->started + 1; /* a run that begins after this call */
    while (gc->running && gc->finished < wanted)
        pthread_cond_wait(&gc->ended, &gc->lock);
    if (gc->finished < wanted) {
        begin_run(gc);
        pthread_mutex_unlock(&gc->lock);
        r = collect(gc, &stats, &expiry, &error);
        pthread_mutex_lock(&gc->lock);
        end_run(gc, r, &error, &stats, expiry);
    }
    r = gc->result;
    if (ret)
        *ret = gc->stats;
    if (r < 0 && e)
        *e = gc->error;
    pthread_mutex_unlock(&gc->lock);
    return r;
}

static void run_job(struct workq_job *job)
{
    struct gc *gc = container_of(job, struct gc, job);
    struct err e = ERR_INIT;
    int r = gc_run(gc, NULL, &e);

    if (r < 0)
        log_error("garbage collection: %s", e.msg);
    pthread_mutex_lock(&gc->lock);
    gc->job_running = false;
    if (r < 0)
        make_due(gc, clock_monotonic_ms() + TIMER_MAX_MS);
    wake_loop(gc);
    pthread_mutex_unlock(&gc->lock);
}

static void on_timer(struct event_timer *timer)
{
    struct gc *gc = container_of(timer, struct gc, timer);

    pthread_mutex_lock(&gc->lock);
    if (gc->expiry.tv_sec && !is_after(gc->expiry, clock_realtime())) {
        gc->expiry = (struct timespec){};
        gc->due_ms = 0;
    }
    if (gc->due_ms <= clock_monotonic_ms() && !gc->job_running) {
        gc->job_running = workq_submit(gc->pool, &gc->job, run_job) >= 0;
        gc->due_ms = gc->job_running ? NEVER : clock_monotonic_ms() + 1000;
    }
    arm(gc);
    pthread_mutex_unlock(&gc->lock);
}

/* Milliseconds from now to at, rounded up, and no more than the timer may sleep. */
static uint64_t until_ms(struct timespec at, struct timespec now)
{
    if (!is_after(at, now))
        return 0;
    if (at.tv_sec - now.tv_sec >= TIMER_MAX_MS / 1000)
        return TIMER_MAX_MS;
    return (uint64_t)((at.tv_sec - now.tv_sec) * 1000 + (at.tv_nsec - now.tv_nsec) / 1000000 + 1);
}

/* Sets the timer for what comes next. While a job runs nothing is armed: its end arms again. [loop,
 * lock held] */
static void arm(struct gc *gc)
{
    struct timespec now = clock_realtime();
    uint64_t now_ms = clock_monotonic_ms(), wait = NEVER;

    event_timer_disarm(&gc->timer);
    if (gc->job_running || gc->stopped)
        return;
    if (gc->due_ms != NEVER)
        wait = gc->due_ms > now_ms ? gc->due_ms - now_ms : 0;
    if (gc->expiry.tv_sec)
        wait = MIN_OF(wait, until_ms(gc->expiry, now));
    if (wait != NEVER)
        event_timer_arm(gc->loop, &gc->timer, wait, on_timer);
}

int gc_new(struct event_loop *loop, struct workq *pool, struct db *db,
           struct content_store *content, struct snapshotters *snapshotters,
           const struct gc_options *options, struct gc **ret, struct err *e)
{
    struct gc *gc = calloc(1, sizeof(*gc));

    if (!gc)
        return err_oom(e);
    *gc = (struct gc){
        .loop = loop,
        .pool = pool,
        .db = db,
        .content = content,
        .snapshotters = snapshotters,
        .options = *options,
        .due_ms = NEVER,
    };
    /* Outside of what makes sense: 0.02, and at most half of the time. */
    if (!(gc->options.pause_threshold > 0))
        gc->options.pause_threshold = 0.02;
    gc->options.pause_threshold = MIN_OF(gc->options.pause_threshold, 0.5);
    pthread_mutex_init(&gc->lock, NULL);
    pthread_cond_init(&gc->ended, NULL);
    list_init(&gc->post.link);
    pthread_mutex_lock(&gc->lock);
    make_due(gc, clock_monotonic_ms() + options->startup_delay_ms);
    pthread_mutex_unlock(&gc->lock);
    *ret = gc;
    return 0;
}

void gc_stop(struct gc *gc)
{
    pthread_mutex_lock(&gc->lock);
    gc->stopped = true;
    event_timer_disarm(&gc->timer);
    pthread_mutex_unlock(&gc->lock);
}

struct gc *gc_free(struct gc *gc)
{
    if (!gc)
        return NULL;
    if (gc->loop) {
        event_timer_disarm(&gc->timer);
        pthread_mutex_lock(&gc->loop->post_lock);
        list_remove(&gc->post.link);
        pthread_mutex_unlock(&gc->loop->post_lock);
    }
    pthread_cond_destroy(&gc->ended);
    pthread_mutex_destroy(&gc->lock);
    free(gc);
    return NULL;
}

const struct gc_options *gc_get_options(const struct gc *gc)
{
    return &gc->options;
}

void gc_notify_deletion(struct gc *gc)
{
    int64_t threshold = gc->options.deletion_threshold;

    pthread_mutex_lock(&gc->lock);
    gc->deletions++;
    if (threshold > 0 && gc->deletions >= threshold)
        make_due_soon(gc);
    else
        make_due(gc, clock_monotonic_ms() + interval_ms(gc));
    pthread_mutex_unlock(&gc->lock);
}

void gc_notify_mutation(struct gc *gc)
{
    int64_t threshold = gc->options.mutation_threshold;

    pthread_mutex_lock(&gc->lock);
    gc->mutations++;
    if (threshold > 0 && gc->mutations >= threshold)
        make_due_soon(gc);
    pthread_mutex_unlock(&gc->lock);
}

void gc_notify_expiry(struct gc *gc, struct timespec at)
{
    pthread_mutex_lock(&gc->lock);
    gc->expiry_told = earlier(gc->expiry_told, at);
    if (!gc->expiry.tv_sec || is_after(gc->expiry, at)) {
        gc->expiry = at;
        wake_loop(gc);
    }
    pthread_mutex_unlock(&gc->lock);
}

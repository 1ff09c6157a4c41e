/* SPDX-License-Identifier: Apache-2.0 */
#include "store/gc_graph.h"

#include "base/str.h"

#define LABEL_REF_CONTENT "containerd.io/gc.ref.content"
#define LABEL_REF_SNAPSHOT "containerd.io/gc.ref.snapshot."
#define LABEL_ROOT "containerd.io/gc.root"
#define LABEL_EXPIRE "containerd.io/gc.expire"
#define LABEL_FLAT "containerd.io/gc.flat"

void gc_graph_done(struct gc_graph *g)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        free(g->nodes[i].key);
    free(g->nodes);
    free(g->edges);
    free(g->queue);
    map_done(&g->by_key);
    *g = (struct gc_graph){};
}

/* Room for one more of an array that doubles. */
static int grow(void *array, size_t n, size_t *allocated, size_t size)
{
    void **p = array;
    size_t wanted = *allocated ? *allocated * 2 : 256;

    if (n < *allocated)
        return 0;
    void *bigger = reallocarray(*p, wanted, size);
    if (!bigger)
        return -ENOMEM;
    *p = bigger;
    *allocated = wanted;
    return 0;
}

/* Separators cannot occur in namespaces and snapshotters, so different objects have different keys.
 */
static char *make_key(enum gc_kind kind, const char *ns, const char *snapshotter, const char *id)
{
    return kind == GC_SNAPSHOT ? str_printf("%d\n%s\n%s\n%s", kind, ns, snapshotter, id)
                               : str_printf("%d\n%s\n%s", kind, ns, id);
}

static int add_node(struct gc_graph *g, enum gc_kind kind, const char *ns, const char *snapshotter,
                    const char *id, struct gc_node **ret)
{
    _free_ char *key = make_key(kind, ns, snapshotter, id);

    if (!key || grow(&g->nodes, g->n_nodes, &g->nodes_allocated, sizeof(*g->nodes)) < 0 ||
        map_add(&g->by_key, key, (void *)(uintptr_t)(g->n_nodes + 1)) < 0)
        return -ENOMEM;
    g->nodes[g->n_nodes] = (struct gc_node){.kind = kind, .key = TAKE(key)};
    *ret = &g->nodes[g->n_nodes++];
    return 0;
}

/* Index of a node, -ENOENT for what does not exist, -ENOMEM. */
static ssize_t find_node(const struct gc_graph *g, enum gc_kind kind, const char *ns,
                         const char *snapshotter, const char *id)
{
    _free_ char *key = make_key(kind, ns, snapshotter, id);
    uintptr_t found;

    if (!key)
        return -ENOMEM;
    found = (uintptr_t)map_get(&g->by_key, key);
    return found ? (ssize_t)(found - 1) : -ENOENT;
}

static int add_edge(struct gc_graph *g, size_t from, size_t to, bool strong)
{
    if (grow(&g->edges, g->n_edges, &g->edges_allocated, sizeof(*g->edges)) < 0)
        return -ENOMEM;
    g->edges[g->n_edges++] = (struct gc_edge){(uint32_t)from, (uint32_t)to, strong};
    return 0;
}

/* Reaches a node, or reaches it better than before; a node is queued at most once in each way. */
static int reach(struct gc_graph *g, size_t node, enum gc_reach how)
{
    if (g->nodes[node].reach >= how)
        return 0;
    if (grow(&g->queue, g->n_queue, &g->queue_allocated, sizeof(*g->queue)) < 0)
        return -ENOMEM;
    g->nodes[node].reach = how;
    g->queue[g->n_queue++] = (uint32_t)node;
    return 0;
}

static int reach_named(struct gc_graph *g, enum gc_kind kind, const char *ns,
                       const char *snapshotter, const char *id, enum gc_reach how)
{
    ssize_t node = find_node(g, kind, ns, snapshotter, id);

    return node < 0 ? (node == -ENOENT ? 0 : -ENOMEM) : reach(g, (size_t)node, how);
}

static void note_expiry(struct gc_graph *g, struct timespec at)
{
    if (g->next_expiry.tv_sec == 0 || at.tv_sec < g->next_expiry.tv_sec ||
        (at.tv_sec == g->next_expiry.tv_sec && at.tv_nsec < g->next_expiry.tv_nsec))
        g->next_expiry = at;
}

static bool is_after(struct timespec a, struct timespec b)
{
    return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

/* Runs fn for every row of a query. */
static int each_row(struct gc_graph *g, struct db_txn *txn, const char *sql,
                    int (*fn)(struct gc_graph *g, sqlite3_stmt *row), struct err *e)
{
    sqlite3_stmt *stmt;
    int r = db_stmt(txn, sql, &stmt, e);

    if (r < 0)
        return r;
    while ((r = db_step(txn, stmt, e)) > 0)
        if (fn(g, stmt) < 0)
            return err_oom(e);
    return r;
}

static int load_content(struct gc_graph *g, sqlite3_stmt *row)
{
    struct gc_node *node;

    return add_node(g, GC_CONTENT, db_column_text(row, 0), NULL, db_column_text(row, 1), &node);
}

static int load_snapshot(struct gc_graph *g, sqlite3_stmt *row)
{
    struct gc_node *node;

    if (add_node(g, GC_SNAPSHOT, db_column_text(row, 0), db_column_text(row, 1),
                 db_column_text(row, 2), &node) < 0)
        return -ENOMEM;
    node->dir = sqlite3_column_int64(row, 3);
    node->parent = sqlite3_column_int64(row, 4);
    return 0;
}

/* Columns: namespace, reference, expected digest, expiry. */
static int load_ingest(struct gc_graph *g, sqlite3_stmt *row)
{
    struct timespec expires = db_column_time(row, 3);
    struct gc_node *node;
    ssize_t blob;
    size_t index;

    if (add_node(g, GC_INGEST, db_column_text(row, 0), NULL, db_column_text(row, 1), &node) < 0)
        return -ENOMEM;
    index = (size_t)(node - g->nodes);
    blob = find_node(g, GC_CONTENT, db_column_text(row, 0), NULL, db_column_text(row, 2));
    if (blob == -ENOMEM || (blob >= 0 && add_edge(g, index, (size_t)blob, false) < 0))
        return -ENOMEM;
    if (!is_after(expires, g->now))
        return 0;
    note_expiry(g, expires);
    return reach(g, index, GC_FULL);
}

/* Columns: namespace, id, label gc.expire, label gc.flat (NULL without). An expiry that cannot be
 * read does not expire: what somebody wanted kept is kept. */
static int load_lease(struct gc_graph *g, sqlite3_stmt *row)
{
    const char *expire = (const char *)sqlite3_column_text(row, 2);
    bool flat = sqlite3_column_type(row, 3) != SQLITE_NULL;
    struct gc_node *node;
    struct timespec at;

    if (add_node(g, GC_LEASE, db_column_text(row, 0), NULL, db_column_text(row, 1), &node) < 0)
        return -ENOMEM;
    if (expire && clock_parse_rfc3339(expire, &at) == 0) {
        if (!is_after(at, g->now))
            return 0;
        note_expiry(g, at);
    }
    return reach(g, (size_t)(node - g->nodes), flat ? GC_FLAT : GC_FULL);
}

/* Columns: namespace, lease, type, resource. What a lease holds is as alive as the lease. */
static int load_resource(struct gc_graph *g, sqlite3_stmt *row)
{
    const char *ns = db_column_text(row, 0), *type = db_column_text(row, 2),
               *id = db_column_text(row, 3);
    const char *snapshotter = str_after_prefix(type, "snapshots/");
    ssize_t lease = find_node(g, GC_LEASE, ns, NULL, db_column_text(row, 1));
    enum gc_kind kind;

    if (lease < 0)
        return lease == -ENOENT ? 0 : -ENOMEM;
    if (snapshotter)
        kind = GC_SNAPSHOT;
    else if (str_eq(type, "content"))
        kind = GC_CONTENT;
    else if (str_eq(type, "ingests"))
        kind = GC_INGEST;
    else
        return 0; /* images are roots themselves */
    return reach_named(g, kind, ns, snapshotter, id, g->nodes[lease].reach);
}

static int load_image(struct gc_graph *g, sqlite3_stmt *row)
{
    return reach_named(g, GC_CONTENT, db_column_text(row, 0), NULL, db_column_text(row, 1),
                       GC_FULL);
}

static int load_container(struct gc_graph *g, sqlite3_stmt *row)
{
    return reach_named(g, GC_SNAPSHOT, db_column_text(row, 0), db_column_text(row, 1),
                       db_column_text(row, 2), GC_FULL);
}

/* The object that a label refers to: its index, -ENOENT for none, -ENOMEM. Keys may end in ".<x>"
 * or "/<x>", so that an object can have many references. */
static ssize_t label_target(const struct gc_graph *g, const char *ns, const char *key,
                            const char *value)
{
    const char *rest = str_after_prefix(key, LABEL_REF_CONTENT);

    if (rest && (!*rest || *rest == '.' || *rest == '/'))
        return find_node(g, GC_CONTENT, ns, NULL, value);
    rest = str_after_prefix(key, LABEL_REF_SNAPSHOT);
    if (rest && *rest) {
        _free_ char *snapshotter = strndup(rest, strcspn(rest, "/"));
        return snapshotter ? find_node(g, GC_SNAPSHOT, ns, snapshotter, value) : -ENOMEM;
    }
    return -ENOENT;
}

/* Columns: namespace, kind, object, key, value; of keys that begin with containerd.io/gc. */
static int load_label(struct gc_graph *g, sqlite3_stmt *row)
{
    const char *ns = db_column_text(row, 0), *kind = db_column_text(row, 1),
               *object = db_column_text(row, 2), *key = db_column_text(row, 3);
    const char *snapshotter = str_after_prefix(kind, "snapshot/");
    ssize_t to = label_target(g, ns, key, db_column_text(row, 4)), from;

    if (to == -ENOMEM)
        return -ENOMEM;
    /* Images and containers are always there. */
    if (str_eq(kind, "image") || str_eq(kind, "container"))
        return to >= 0 ? reach(g, (size_t)to, GC_FULL) : 0;
    if (!snapshotter && !str_eq(kind, "content"))
        return 0;
    from = find_node(g, snapshotter ? GC_SNAPSHOT : GC_CONTENT, ns, snapshotter, object);
    if (from < 0)
        return from == -ENOENT ? 0 : -ENOMEM;
    if (str_eq(key, LABEL_ROOT))
        return reach(g, (size_t)from, GC_FULL);
    return to >= 0 ? add_edge(g, (size_t)from, (size_t)to, false) : 0;
}

static int compare_dirs(const void *a, const void *b)
{
    const struct gc_node *const *x = a, *const *y = b;

    return ((*x)->dir > (*y)->dir) - ((*x)->dir < (*y)->dir);
}

/* Edges from snapshots to their parents, found by directory number. */
static int link_parents(struct gc_graph *g)
{
    _free_ void *sorted_memory = calloc(g->n_nodes + 1, sizeof(struct gc_node *));
    struct gc_node **sorted = sorted_memory;
    size_t n = 0;

    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].kind == GC_SNAPSHOT)
            sorted[n++] = &g->nodes[i];
    qsort(sorted, n, sizeof(*sorted), compare_dirs);
    for (size_t i = 0; i < n; i++) {
        struct gc_node wanted = {.dir = sorted[i]->parent}, *key = &wanted, **found;

        if (!wanted.dir)
            continue;
        found = bsearch(&key, sorted, n, sizeof(*sorted), compare_dirs);
        if (found &&
            add_edge(g, (size_t)(sorted[i] - g->nodes), (size_t)(*found - g->nodes), true) < 0)
            return -ENOMEM;
    }
    return 0;
}

int gc_graph_load(struct gc_graph *g, struct db_txn *txn, struct timespec now, struct err *e)
{
    static const struct {
        const char *sql;
        int (*fn)(struct gc_graph *g, sqlite3_stmt *row);
    } steps[] = {
        {"SELECT ns, digest FROM content", load_content},
        {"SELECT ns, snapshotter, name, dir, parent FROM snapshots", load_snapshot},
        {"SELECT ns, ref, expected, expires_at FROM ingests", load_ingest},
        {"SELECT l.ns, l.id, x.value, f.value FROM leases l "
         "LEFT JOIN labels x ON x.ns = l.ns AND x.kind = 'lease' AND x.object = l.id "
         "AND x.key = '" LABEL_EXPIRE "' "
         "LEFT JOIN labels f ON f.ns = l.ns AND f.kind = 'lease' AND f.object = l.id "
         "AND f.key = '" LABEL_FLAT "'",
         load_lease},
        {"SELECT ns, lease, type, resource FROM lease_resources", load_resource},
        {"SELECT ns, digest FROM images", load_image},
        {"SELECT ns, snapshotter, snapshot_key FROM containers", load_container},
        {"SELECT ns, kind, object, key, value FROM labels "
         "WHERE key >= 'containerd.io/gc.' AND key < 'containerd.io/gc/'",
         load_label},
    };

    g->now = now;
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        int r = each_row(g, txn, steps[i].sql, steps[i].fn, e);
        if (r < 0)
            return r;
    }
    return link_parents(g) < 0 ? err_oom(e) : 0;
}

/* Brings edges into the order of their origin (counting sort), so that a node's are next to each
 * other. */
static int index_edges(struct gc_graph *g)
{
    struct gc_edge *sorted = calloc(g->n_edges + 1, sizeof(*sorted));
    uint32_t total = 0;

    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < g->n_edges; i++)
        g->nodes[g->edges[i].from].edges++;
    for (size_t i = 0; i < g->n_nodes; i++) {
        uint32_t n = g->nodes[i].edges;
        g->nodes[i].edges = total;
        total += n;
    }
    /* Filling moves each start to the end of its run; the run of a node then begins where the one
     * before ends. */
    for (size_t i = 0; i < g->n_edges; i++)
        sorted[g->nodes[g->edges[i].from].edges++] = g->edges[i];
    free(g->edges);
    g->edges = sorted;
    return 0;
}

int gc_graph_mark(struct gc_graph *g, struct err *e)
{
    if (index_edges(g) < 0)
        return err_oom(e);
    for (size_t at = 0; at < g->n_queue; at++) {
        uint32_t node = g->queue[at];
        enum gc_reach how = g->nodes[node].reach;
        size_t first = node ? g->nodes[node - 1].edges : 0;

        for (size_t i = first; i < g->nodes[node].edges; i++)
            if ((how == GC_FULL || g->edges[i].strong) && reach(g, g->edges[i].to, how) < 0)
                return err_oom(e);
    }
    return 0;
}

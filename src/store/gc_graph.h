/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What refers to what, loaded in one transaction, and what of it can be reached.
 *
 * A node is an object that can be removed: a blob or an ingest of a namespace, a snapshot, a lease.
 * Images and containers are only roots and have no node. An edge follows references by label or
 * ("strong") from a snapshot to its parent; a node that a flat lease holds is kept alone with its
 * parents, one that is reached otherwise keeps what it refers to. Every edge is looked at twice at
 * most, so time is linear and cycles, self-references and dangling ones need no special care.
 */
#pragma once

#include "base/map.h"
#include "store/db.h"

enum gc_kind { GC_CONTENT, GC_INGEST, GC_SNAPSHOT, GC_LEASE };
enum gc_reach { GC_UNREACHED, GC_FLAT, GC_FULL };

struct gc_node {
    enum gc_kind kind;
    enum gc_reach reach;
    char *key;      /* "<kind>\n<ns>\n<id>" or "<kind>\n<ns>\n<snapshotter>\n<name>" */
    int64_t dir;    /* of a snapshot */
    int64_t parent; /* dir of its parent, 0: none */
    uint32_t edges; /* index of the first outgoing edge, after gc_graph_mark() */
};
struct gc_edge {
    uint32_t from, to;
    bool strong;
};
struct gc_graph {
    struct gc_node *nodes;
    size_t n_nodes, nodes_allocated;
    struct gc_edge *edges;
    size_t n_edges, edges_allocated;
    struct map by_key; /* index + 1 as pointer */
    uint32_t *queue;   /* roots, then what was reached through them */
    size_t n_queue, queue_allocated;
    struct timespec now;
    struct timespec next_expiry; /* {0, 0}: nothing will expire */
};

void gc_graph_done(struct gc_graph *g);
/* Reads all nodes, roots and edges; `now` decides what has expired. */
int gc_graph_load(struct gc_graph *g, struct db_txn *txn, struct timespec now, struct err *e);
/* Sets `reach` of every node. */
int gc_graph_mark(struct gc_graph *g, struct err *e);

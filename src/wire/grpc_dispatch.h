/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a server: what its connections and calls need of it.
 *
 * Calls that have something for the loop (messages to send, a step to take) are put on the list of
 * due calls by any thread; the loop is woken once for all that come while it is busy elsewhere.
 * Inside the server's own callbacks (grpc_server_enter() to grpc_server_leave()) nobody is woken:
 * leaving works through the list. So callbacks of methods never run inside the functions they call,
 * nor inside nghttp2.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "wire/grpc_server.h"

struct grpc_conn;

struct grpc_server {
    atomic_uint refs; /* the owner and every call */
    struct event_loop *loop;
    struct grpc_server_options options;
    const struct grpc_service *services;
    size_t n_services;

    /* Loop only. */
    struct list listeners;
    struct list conns;
    size_t n_conns;
    struct list accounts;
    struct list flush; /* connections with something to write */
    uint8_t *scratch;  /* while there are connections */
    unsigned depth;    /* of grpc_server_enter() */
    bool is_shutting_down;
    uint64_t refused_at_ms; /* when we last logged that a connection was refused */
    struct event_timer trim;

    pthread_mutex_t lock;
    struct list due;
    struct event_post post;
    bool is_busy;   /* the loop will look at `due` by itself */
    bool is_posted; /* or was told to */
    bool is_freed;
};

void grpc_server_unref(struct grpc_server *s);
/* [loop] A connection has gone. What clients left on the heap is given back once no other one has
 * for a moment: their calls may outlive them for as long, and the allocator keeps small parts by
 * itself. */
void grpc_server_trim_later(struct grpc_server *s);
/* [loop] The post that drains the list of due calls; the server takes it back when it is freed. */
void grpc_server_init_due(struct grpc_server *s);
void grpc_server_drop_due(struct grpc_server *s);

/* [any thread] The call has something for its stream. */
void grpc_server_sync_later(struct grpc_server *s, struct grpc_call *call);
/* [any thread] The call has a step to take on the loop; takes over the reference of the run. */
void grpc_server_run_later(struct grpc_server *s, struct grpc_call *call);

/* [any thread] Gives a job to the pool. -ESHUTDOWN when there is none (any more), or as of
 * workq_submit(). */
int grpc_server_submit(struct grpc_server *s, struct workq_job *job, workq_fn fn);

/* Around everything the loop does for this server. */
void grpc_server_enter(struct grpc_server *s);
void grpc_server_leave(struct grpc_server *s);

/* Looks up "/package.Service/Method". 0, or a code with a sentence. */
int grpc_server_find(const struct grpc_server *s, const char *path, const struct grpc_service **ret,
                     const struct grpc_method **ret_method, struct err *e);

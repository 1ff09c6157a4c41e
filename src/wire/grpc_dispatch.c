/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_dispatch.h"

#include "wire/grpc_call.h"
#include "wire/grpc_steps.h"

/* How often one entry works through what is due before the loop gets its turn. */
#define ROUNDS_MAX 16

static void drain_posted(struct event_post *post)
{
    struct grpc_server *s = container_of(post, struct grpc_server, post);

    pthread_mutex_lock(&s->lock);
    s->is_posted = false;
    pthread_mutex_unlock(&s->lock);
    grpc_server_enter(s);
    grpc_server_leave(s);
}

void grpc_server_init_due(struct grpc_server *s)
{
    list_init(&s->due);
    list_init(&s->post.link);
}

/* [lock held] The loop is told once. Posted under the lock, so that grpc_server_drop_due() finds
 * it. */
static void server_wake(struct grpc_server *s)
{
    if (s->is_busy || s->is_posted)
        return;
    s->is_posted = true;
    event_loop_post(s->loop, &s->post, drain_posted);
}

/* [lock held] */
static void server_add_due(struct grpc_server *s, struct grpc_call *call)
{
    if (!call->is_due) {
        call->is_due = true;
        grpc_call_ref(call);
        list_push_back(&s->due, &call->due_link);
    }
    server_wake(s);
}

void grpc_server_sync_later(struct grpc_server *s, struct grpc_call *call)
{
    pthread_mutex_lock(&s->lock);
    if (!s->is_freed) {
        call->is_sync_due = true;
        server_add_due(s, call);
    }
    pthread_mutex_unlock(&s->lock);
}

void grpc_server_run_later(struct grpc_server *s, struct grpc_call *call)
{
    pthread_mutex_lock(&s->lock);
    call->is_run_due = true;
    server_add_due(s, call);
    pthread_mutex_unlock(&s->lock);
}

int grpc_server_submit(struct grpc_server *s, struct workq_job *job, workq_fn fn)
{
    pthread_mutex_lock(&s->lock);
    int r = s->options.pool ? workq_submit(s->options.pool, job, fn) : -ESHUTDOWN;
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Works through the calls that are due now and those that become due meanwhile. */
static void server_run_due(struct grpc_server *s)
{
    for (;;) {
        struct grpc_call *call = NULL;
        bool is_sync_due = false, is_run_due = false;

        pthread_mutex_lock(&s->lock);
        struct list *l = list_pop_front(&s->due);
        if (l) {
            call = container_of(l, struct grpc_call, due_link);
            is_sync_due = call->is_sync_due;
            is_run_due = call->is_run_due;
            call->is_due = call->is_sync_due = call->is_run_due = false;
        }
        pthread_mutex_unlock(&s->lock);
        if (!call)
            return;

        if (is_sync_due)
            grpc_stream_sync(call);
        if (is_run_due)
            grpc_steps_run(call);
        grpc_call_unref(call);
    }
}

static void server_flush(struct grpc_server *s)
{
    for (struct list *l; (l = list_pop_front(&s->flush));)
        grpc_conn_flush(container_of(l, struct grpc_conn, flush_link));
}

void grpc_server_enter(struct grpc_server *s)
{
    if (s->depth++ > 0)
        return;
    pthread_mutex_lock(&s->lock);
    s->is_busy = true;
    pthread_mutex_unlock(&s->lock);
}

void grpc_server_leave(struct grpc_server *s)
{
    if (s->depth > 1) {
        s->depth--;
        return;
    }
    for (int round = 0;; round++) {
        server_run_due(s);
        server_flush(s);

        pthread_mutex_lock(&s->lock);
        bool is_idle = list_is_empty(&s->due);
        if (is_idle || round == ROUNDS_MAX) {
            s->is_busy = false;
            if (!is_idle)
                server_wake(s);
            s->depth--;
            pthread_mutex_unlock(&s->lock);
            return;
        }
        pthread_mutex_unlock(&s->lock);
    }
}

void grpc_server_drop_due(struct grpc_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_freed = true;
    s->is_posted = true; /* never again */
    pthread_mutex_lock(&s->loop->post_lock);
    list_remove(&s->post.link);
    pthread_mutex_unlock(&s->loop->post_lock);
    pthread_mutex_unlock(&s->lock);
}

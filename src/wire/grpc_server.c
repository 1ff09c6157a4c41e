/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_server.h"

#include <malloc.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "wire/grpc_call.h"
#include "wire/grpc_dispatch.h"

#define ACCEPTS_PER_TURN 64
#define TRIM_AFTER_MS 500
/* How long we do not look at the listening socket after accept(2) ran out of fds or memory. */
#define ACCEPT_PAUSE_MS 100

struct listener {
    struct list link;
    struct grpc_server *server;
    struct event_fd source;
    struct event_timer pause;
    int fd;
};

static void listener_free(struct listener *l)
{
    event_fd_remove(&l->source);
    event_timer_disarm(&l->pause);
    close_fd(&l->fd);
    list_remove(&l->link);
    free(l);
}

static void listener_resume(struct event_timer *timer)
{
    struct listener *l = container_of(timer, struct listener, pause);

    if (event_fd_set(&l->source, EPOLLIN) < 0)
        event_timer_arm(l->server->loop, &l->pause, ACCEPT_PAUSE_MS, listener_resume);
}

static void listener_pause(struct listener *l, int error)
{
    log_warn("accept a connection: %s", err_strerror(error));
    event_fd_set(&l->source, 0);
    event_timer_arm(l->server->loop, &l->pause, ACCEPT_PAUSE_MS, listener_resume);
}

/* At most one line a second: whoever floods us with connections shall not fill the log as well. */
static void server_log_refusal(struct grpc_server *s, int error)
{
    uint64_t now = clock_monotonic_ms();

    if (s->refused_at_ms != 0 && now - s->refused_at_ms < 1000)
        return;
    s->refused_at_ms = now;
    log_warn("refuse a connection: %s", err_strerror(error));
}

static void listener_ready(struct event_fd *source, _unused_ uint32_t events)
{
    struct listener *l = container_of(source, struct listener, source);
    struct grpc_server *s = l->server;

    grpc_server_enter(s);
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        _close_ int fd = -EBADF;
        int r = sock_accept(l->fd, &fd);
        if (r == -EAGAIN)
            break;
        if (r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOBUFS) {
            listener_pause(l, r);
            break;
        }
        if (r < 0)
            continue; /* the client has gone again */
        r = grpc_conn_new(s, fd);
        if (r >= 0)
            fd = -EBADF;
        else
            server_log_refusal(s, r);
    }
    grpc_server_leave(s);
}

int grpc_server_new(struct event_loop *loop, const struct grpc_server_options *options,
                    const struct grpc_service *services, size_t n_services,
                    struct grpc_server **ret, struct err *e)
{
    int r = event_loop_enable_posts(loop);
    if (r < 0)
        return err_errno(e, r, "make an event fd");

    struct grpc_server *s = calloc(1, sizeof(*s));
    if (!s)
        return err_oom(e);
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return err_oom(e);
    }
    s->refs = 1;
    s->loop = loop;
    s->options = *options;
    if (!s->options.max_recv_message)
        s->options.max_recv_message = GRPC_MESSAGE_MAX;
    if (!s->options.max_send_message)
        s->options.max_send_message = GRPC_MESSAGE_MAX;
    s->services = services;
    s->n_services = n_services;
    list_init(&s->listeners);
    list_init(&s->conns);
    list_init(&s->accounts);
    list_init(&s->flush);
    grpc_server_init_due(s);
    *ret = s;
    return 0;
}

int grpc_server_listen(struct grpc_server *s, int listen_fd, struct err *e)
{
    struct listener *l = calloc(1, sizeof(*l));
    if (!l)
        return err_oom(e);
    l->server = s;
    int r = event_fd_add(s->loop, &l->source, listen_fd, EPOLLIN, listener_ready);
    if (r < 0) {
        free(l);
        return err_errno(e, r, "watch a listening socket");
    }
    l->fd = listen_fd;
    list_push_back(&s->listeners, &l->link);
    return 0;
}

static void server_close_listeners(struct grpc_server *s)
{
    struct listener *l, *next;
    LIST_FOREACH_SAFE (l, next, &s->listeners, link)
        listener_free(l);
}

static void trim(struct event_timer *timer)
{
    malloc_trim(0);
}

void grpc_server_trim_later(struct grpc_server *s)
{
    if (!s->is_shutting_down)
        event_timer_arm(s->loop, &s->trim, TRIM_AFTER_MS, trim);
}

void grpc_server_shutdown(struct grpc_server *s)
{
    struct grpc_conn *conn;

    s->is_shutting_down = true;
    server_close_listeners(s);
    grpc_server_enter(s);
    LIST_FOREACH (conn, &s->conns, link)
        grpc_conn_shutdown(conn);
    grpc_server_leave(s);
}

struct grpc_server *grpc_server_free(struct grpc_server *s)
{
    if (!s)
        return NULL;

    s->is_shutting_down = true;
    event_timer_disarm(&s->trim);
    server_close_listeners(s);
    /* Callbacks that still have to come run here. */
    pthread_mutex_lock(&s->lock);
    s->options.pool = NULL;
    pthread_mutex_unlock(&s->lock);

    do {
        struct grpc_conn *conn, *next;
        grpc_server_enter(s);
        LIST_FOREACH_SAFE (conn, next, &s->conns, link)
            grpc_conn_free(conn);
        grpc_server_leave(s);
    } while (!list_is_empty(&s->due));
    grpc_server_drop_due(s);
    grpc_server_unref(s);
    return NULL;
}

void grpc_server_unref(struct grpc_server *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

size_t grpc_server_connections(const struct grpc_server *s)
{
    return s->n_conns;
}

int grpc_server_find(const struct grpc_server *s, const char *path, const struct grpc_service **ret,
                     const struct grpc_method **ret_method, struct err *e)
{
    const char *slash = strrchr(path, '/');
    if (path[0] != '/' || slash == path)
        return err_set(e, ERR_UNIMPLEMENTED, "malformed method name: \"%.256s\"", path);

    const char *service = path + 1;
    size_t n = (size_t)(slash - service);
    for (size_t i = 0; i < s->n_services; i++) {
        const struct grpc_service *it = &s->services[i];
        if (strncmp(it->name, service, n) != 0 || it->name[n] != '\0')
            continue;
        for (size_t k = 0; k < it->n_methods; k++) {
            if (strcmp(it->methods[k].name, slash + 1) != 0)
                continue;
            *ret = it;
            *ret_method = &it->methods[k];
            return 0;
        }
        return err_set(e, ERR_UNIMPLEMENTED, "unknown method %.256s for service %s", slash + 1,
                       it->name);
    }
    return err_set(e, ERR_UNIMPLEMENTED, "unknown service %.*s", (int)MIN_OF(n, (size_t)256),
                   service);
}

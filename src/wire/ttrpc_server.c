/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycles. A connection is freed when it is closed, but not while its frames are being
 * dispatched: a handler may answer (which may find the peer gone) or free the server, so
 * `dispatching` defers it. A call is freed when it is answered; its connection only borrows it, and
 * a connection that goes leaves its calls behind with `conn` cleared.
 */
#include "wire/ttrpc_server.h"

#include <limits.h>

#include "base/sock.h"
#include "base/str.h"
#include "ttrpc.pb-c.h"
#include "wire/pb.h"
#include "wire/status.h"
#include "wire/ttrpc_link.h"

/* Reads of one connection before the others have their turn. */
#define READS_PER_TURN 16
/* How long to leave new connections waiting when there are no fds or memory for them. */
#define ACCEPT_PAUSE_MS 100

struct ttrpc_server {
    struct event_loop *loop;
    int listen_fd;
    struct event_fd listener;
    struct event_timer accept_again;
    const struct ttrpc_service *services;
    size_t n_services;
    void *userdata;
    struct list conns;
    size_t n_conns;
    size_t n_queued; /* connections with bytes to write */
    void (*flushed)(void *userdata);
};

struct conn {
    struct ttrpc_server *server; /* NULL once closed */
    struct list link;
    struct ttrpc_link io;
    struct list calls;
    size_t n_calls;
    uint32_t last_id;
    bool queued; /* counted in n_queued */
    bool dispatching;
};

struct ttrpc_call {
    struct conn *conn; /* NULL once the peer is gone or was answered otherwise */
    struct list link;
    uint32_t stream_id;
    void *userdata;
    Pb__Ttrpc__Request *envelope;
    ProtobufCMessage *request;
};

static void call_detach(struct ttrpc_call *call)
{
    if (!call->conn)
        return;
    list_remove(&call->link);
    call->conn->n_calls--;
    call->conn = NULL;
}

static void call_free(struct ttrpc_call *call)
{
    call_detach(call);
    pb_free(call->request);
    pb_free(&call->envelope->base);
    free(call);
}

static void conn_free(struct conn *conn)
{
    ttrpc_link_done(&conn->io);
    free(conn);
}

/* Leaves the server; the memory goes now or when the dispatch is over. The caller must not touch
 * conn unless it is the dispatch. */
static void conn_close(struct conn *conn)
{
    struct ttrpc_server *s = conn->server;

    if (!s)
        return;
    conn->server = NULL;
    list_remove(&conn->link);
    s->n_conns--;
    while (!list_is_empty(&conn->calls))
        call_detach(container_of(conn->calls.next, struct ttrpc_call, link));
    ttrpc_link_close(&conn->io);
    bool was_last = (conn->queued && --s->n_queued == 0) || s->n_conns == 0;
    if (!conn->dispatching)
        conn_free(conn);
    if (was_last && s->flushed)
        s->flushed(s->userdata);
}

/* Writes what is queued. May close the connection, and the owner may free the server in `flushed`:
 * nothing is touched after that. */
static void conn_flush(struct conn *conn)
{
    struct ttrpc_server *s = conn->server;

    if (!s)
        return;
    if (ttrpc_link_flush(&conn->io) < 0) {
        conn_close(conn);
        return;
    }
    if (conn->queued && conn->io.out.len == 0) {
        conn->queued = false;
        if (--s->n_queued == 0 && s->flushed)
            s->flushed(s->userdata);
    }
}

/* After something was put into the queue: r is what that returned. While frames are dispatched the
 * answers gather and are written together. */
static void conn_queued(struct conn *conn, int r)
{
    if (r < 0) { /* the peer does not read, or there is no memory: either way it gets no answer */
        conn_close(conn);
        return;
    }
    if (!conn->queued) {
        conn->queued = true;
        conn->server->n_queued++;
    }
    if (!conn->dispatching)
        conn_flush(conn);
}

static void conn_fail(struct conn *conn, uint32_t stream_id, const struct err *e)
{
    Pb__Ttrpc__Response response = PB__TTRPC__RESPONSE__INIT;
    Pb__Rpc__Status status;
    uint8_t *p;

    status_from_err(e, &status);
    response.status = &status;
    size_t n = pb__ttrpc__response__get_packed_size(&response);
    int r = ttrpc_encode_header(&conn->io.out, stream_id, TTRPC_RESPONSE, n, &p);
    if (r == 0) {
        pb__ttrpc__response__pack(&response, p);
        buf_commit(&conn->io.out, TTRPC_HEADER_SIZE + n);
    }
    conn_queued(conn, r);
}

static size_t put_varint(uint8_t *p, uint64_t v)
{
    size_t n = 0;

    while (v >= 0x80) {
        p[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t)v;
    return n;
}

/*
 * Response{status: {}, payload}, the payload packed where it will be sent from. The empty status is
 * what Go servers send; clients older than ttrpc 1.0.2 take an absent one for a fault.
 */
static int encode_reply(struct buf *out, uint32_t stream_id, const ProtobufCMessage *message)
{
    uint8_t head[2 + 1 + 10] = {0x0a, 0x00};
    size_t n_head = 2;
    uint8_t *p;

    size_t n = protobuf_c_message_get_packed_size(message);
    if (n > 0) {
        head[n_head++] = 0x12;
        n_head += put_varint(head + n_head, n);
    }
    int r = ttrpc_encode_header(out, stream_id, TTRPC_RESPONSE, n_head + n, &p);
    if (r < 0)
        return r;
    memcpy(p, head, n_head);
    if (n > 0)
        protobuf_c_message_pack(message, p + n_head);
    buf_commit(out, TTRPC_HEADER_SIZE + n_head + n);
    return 0;
}

static const struct ttrpc_service *find_service(const struct ttrpc_server *s, const char *name)
{
    for (size_t i = 0; i < s->n_services; i++)
        if (strcmp(s->services[i].name, name) == 0)
            return &s->services[i];
    return NULL;
}

static const struct ttrpc_method *find_method(const struct ttrpc_service *service, const char *name)
{
    size_t low = 0, high = service->n_methods;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, service->methods[middle].name);
        if (order == 0)
            return &service->methods[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Everything about a request that can be wrong before a handler sees it. */
static int read_request(struct conn *conn, const struct ttrpc_frame *f, struct ttrpc_call *call,
                        const struct ttrpc_method **ret_method, struct err *e)
{
    ProtobufCMessage *envelope;
    struct err wrong = ERR_INIT;

    if (f->stream_id <= conn->last_id)
        return err_set(e, ERR_INVALID_ARGUMENT, "StreamID cannot be re-used and must increment");
    conn->last_id = f->stream_id;
    if (conn->n_calls >= TTRPC_SERVER_MAX_CALLS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d calls are open on one connection",
                       TTRPC_SERVER_MAX_CALLS);
    if (pb_unpack_request(&pb__ttrpc__request__descriptor, f->payload, f->length, &envelope,
                          &wrong) < 0)
        return err_set(e, wrong.code, "unmarshal request error: %s", wrong.msg);
    call->envelope = (Pb__Ttrpc__Request *)envelope;

    const struct ttrpc_service *service = find_service(conn->server, call->envelope->service);
    if (!service)
        return err_set(e, ERR_UNIMPLEMENTED, "service %s", call->envelope->service);
    const struct ttrpc_method *method = find_method(service, call->envelope->method);
    if (!method)
        return err_set(e, ERR_UNIMPLEMENTED, "method %s", call->envelope->method);
    if (call->envelope->timeout_nano < 0)
        return err_set(e, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    if (pb_unpack_request(method->request, call->envelope->payload.data,
                          call->envelope->payload.len, &call->request, &wrong) < 0)
        return err_set(e, wrong.code == ERR_RESOURCE_EXHAUSTED ? wrong.code : ERR_INTERNAL,
                       "ttrpc: error unmarshalling payload: %s", wrong.msg);
    *ret_method = method;
    return 0;
}

static void handle_request(struct conn *conn, const struct ttrpc_frame *f)
{
    const struct ttrpc_method *method = NULL;
    struct err e = ERR_INIT;
    struct ttrpc_call *call = calloc(1, sizeof(*call));

    int r = call ? read_request(conn, f, call, &method, &e) : err_oom(&e);
    if (r < 0) {
        if (call) {
            pb_free(call->request);
            pb_free(call->envelope ? &call->envelope->base : NULL);
            free(call);
        }
        conn_fail(conn, f->stream_id, &e);
        return;
    }

    /* A call may be parked for as long as a container lives: the bytes are not needed twice. */
    free(call->envelope->payload.data);
    call->envelope->payload = (ProtobufCBinaryData){.data = NULL};
    call->stream_id = f->stream_id;
    call->userdata = conn->server->userdata;
    call->conn = conn;
    list_push_back(&conn->calls, &call->link);
    conn->n_calls++;
    method->handle(call, call->request);
}

/* No method streams, so data belongs to nothing; a call that is open on that stream gets no second
 * answer. */
static void handle_stray_data(struct conn *conn, const struct ttrpc_frame *f)
{
    struct ttrpc_call *call;
    struct err e = ERR_INIT;

    LIST_FOREACH (call, &conn->calls, link) {
        if (call->stream_id == f->stream_id) {
            call_detach(call);
            break;
        }
    }
    err_set(&e, ERR_INVALID_ARGUMENT, "StreamID is no longer active");
    conn_fail(conn, f->stream_id, &e);
}

static void handle_frame(struct conn *conn, const struct ttrpc_frame *f)
{
    struct err e = ERR_INIT;

    if (f->oversize) {
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "message length %u exceed maximum message size of %u",
                f->length, TTRPC_PAYLOAD_MAX);
        conn_fail(conn, f->stream_id, &e);
    } else if (f->stream_id % 2 != 1) {
        err_set(&e, ERR_INVALID_ARGUMENT, "StreamID must be odd for client initiated streams");
        conn_fail(conn, f->stream_id, &e);
    } else if (f->type == TTRPC_REQUEST) {
        handle_request(conn, f);
    } else if (f->type == TTRPC_DATA) {
        handle_stray_data(conn, f);
    }
    /* Other types are ignored, as Go does. */
}

static void conn_ready(struct event_fd *source, uint32_t events)
{
    struct conn *conn = container_of(source, struct conn, io.source);
    struct ttrpc_frame f;
    int r = 0;

    conn->dispatching = true;
    for (int reads = 0; (events & ~(uint32_t)EPOLLOUT) && reads < READS_PER_TURN; reads++) {
        r = ttrpc_link_read(&conn->io);
        if (r <= 0)
            break;
        while (conn->server && ttrpc_decoder_next(&conn->io.in, &f) > 0)
            handle_frame(conn, &f);
        if (!conn->server || conn->io.is_drained)
            break;
    }
    conn->dispatching = false;

    if (!conn->server)
        conn_free(conn);
    else if (r < 0)
        conn_close(conn);
    else
        conn_flush(conn);
}

static bool peer_is_us(int fd)
{
    struct sock_peer peer;

    return sock_peer(fd, &peer) == 0 && peer.uid == geteuid() && peer.gid == getegid();
}

static int add_conn(struct ttrpc_server *s, int fd, struct conn **ret, struct err *e)
{
    if (!peer_is_us(fd))
        return err_set(e, ERR_PERMISSION_DENIED, "the peer runs as another user");
    if (s->n_conns >= TTRPC_SERVER_MAX_CONNECTIONS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d connections",
                       TTRPC_SERVER_MAX_CONNECTIONS);
    struct conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return err_oom(e);
    int r = ttrpc_link_init(&conn->io, s->loop, fd, TTRPC_SERVER_MAX_QUEUED_BYTES, conn_ready);
    if (r < 0) {
        free(conn);
        return err_errno(e, r, "serve a connection");
    }
    conn->server = s;
    list_init(&conn->calls);
    list_push_back(&s->conns, &conn->link);
    s->n_conns++;
    *ret = conn;
    return 0;
}

int ttrpc_server_add(struct ttrpc_server *s, int fd, struct err *e)
{
    struct conn *conn;

    return add_conn(s, fd, &conn, e);
}

static void accept_again(struct event_timer *timer)
{
    struct ttrpc_server *s = container_of(timer, struct ttrpc_server, accept_again);

    if (event_fd_set(&s->listener, EPOLLIN) < 0)
        event_timer_arm(s->loop, timer, ACCEPT_PAUSE_MS, accept_again);
}

/* One connection a turn: the loop tells of the next one, as cheaply as a look that finds none. */
static void listener_ready(struct event_fd *source, _unused_ uint32_t events)
{
    struct ttrpc_server *s = container_of(source, struct ttrpc_server, listener);

    struct conn *conn;
    int fd;
    int r = sock_accept(s->listen_fd, &fd);

    if (r == -EAGAIN)
        return;
    if (r < 0) {
        /* The connection stays in the backlog; looking again at once would only burn time. */
        event_fd_set(&s->listener, 0);
        event_timer_arm(s->loop, &s->accept_again, ACCEPT_PAUSE_MS, accept_again);
        return;
    }
    /* Who connects asks: mostly the request is there already. */
    if (add_conn(s, fd, &conn, NULL) < 0)
        close(fd);
    else
        conn_ready(&conn->io.source, EPOLLIN);
}

int ttrpc_server_new(struct event_loop *loop, int listen_fd, const struct ttrpc_service *services,
                     size_t n_services, void *userdata, struct ttrpc_server **ret, struct err *e)
{
    struct ttrpc_server *s = calloc(1, sizeof(*s));

    if (!s)
        return err_oom(e);
    s->loop = loop;
    s->listen_fd = listen_fd;
    s->services = services;
    s->n_services = n_services;
    s->userdata = userdata;
    list_init(&s->conns);
    if (listen_fd >= 0) {
        int r = event_fd_add(loop, &s->listener, listen_fd, EPOLLIN, listener_ready);
        if (r < 0) {
            free(s);
            return err_errno(e, r, "listen for ttrpc connections");
        }
    }
    *ret = s;
    return 0;
}

struct ttrpc_server *ttrpc_server_free(struct ttrpc_server *s)
{
    if (!s)
        return NULL;
    s->flushed = NULL;
    event_timer_disarm(&s->accept_again);
    event_fd_remove(&s->listener);
    close_fd(&s->listen_fd);
    while (!list_is_empty(&s->conns)) {
        struct conn *conn = container_of(s->conns.next, struct conn, link);
        ttrpc_link_flush(&conn->io); /* whatever comes of it, this connection ends now */
        conn_close(conn);
    }
    free(s);
    return NULL;
}

bool ttrpc_server_is_flushed(const struct ttrpc_server *s)
{
    return s->n_queued == 0;
}

bool ttrpc_server_has_connections(const struct ttrpc_server *s)
{
    return s->n_conns > 0;
}

void ttrpc_server_on_flushed(struct ttrpc_server *s, void (*fn)(void *userdata))
{
    s->flushed = fn;
}

void *ttrpc_call_userdata(const struct ttrpc_call *call)
{
    return call->userdata;
}

const char *ttrpc_call_service(const struct ttrpc_call *call)
{
    return call->envelope->service;
}

const char *ttrpc_call_metadata(const struct ttrpc_call *call, const char *key)
{
    for (size_t i = 0; i < call->envelope->n_metadata; i++)
        if (strcmp(call->envelope->metadata[i]->key, key) == 0)
            return call->envelope->metadata[i]->value;
    return NULL;
}

uint64_t ttrpc_call_timeout_ms(const struct ttrpc_call *call)
{
    uint64_t nano = (uint64_t)call->envelope->timeout_nano;

    return nano / 1000000 + (nano % 1000000 != 0);
}

void ttrpc_call_reply(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    struct conn *conn = call->conn;
    uint32_t stream_id = call->stream_id;

    if (!conn) {
        call_free(call);
        return;
    }
    /* The message may borrow from the request, so it is packed before that goes. */
    int r = encode_reply(&conn->io.out, stream_id, message);
    call_free(call);
    if (r == -EMSGSIZE) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "message length %zu exceed maximum message size of %u",
                protobuf_c_message_get_packed_size(message), TTRPC_PAYLOAD_MAX);
        conn_fail(conn, stream_id, &e);
        return;
    }
    conn_queued(conn, r);
}

void ttrpc_call_fail(struct ttrpc_call *call, const struct err *e)
{
    struct conn *conn = call->conn;
    uint32_t stream_id = call->stream_id;

    call_free(call);
    if (conn)
        conn_fail(conn, stream_id, e);
}

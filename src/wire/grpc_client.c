/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_client.h"

#include <stdio.h>

#include "base/sock.h"
#include "wire/grpc_client_call.h"
#include "wire/pb.h"

#define CLIENT_STREAM_WINDOW (4 << 20)
#define CLIENT_CONN_WINDOW (16 << 20)

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     _unused_ size_t name_len, const uint8_t *value, _unused_ size_t value_len,
                     _unused_ uint8_t flags, _unused_ void *userdata)
{
    struct grpc_client_call *call =
        nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    if (call)
        grpc_client_call_header(call, (const char *)name, (const char *)value);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, _unused_ uint8_t flags, int32_t stream_id,
                         const uint8_t *bytes, size_t n, _unused_ void *userdata)
{
    struct grpc_client_call *call = nghttp2_session_get_stream_user_data(session, stream_id);

    if (call)
        grpc_client_call_data(call, bytes, n);
    return 0;
}

/* A server that ends the stream before we do wants no more of us. */
static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame,
                         _unused_ void *userdata)
{
    int32_t id = frame->hd.stream_id;

    if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
        frame->hd.flags & NGHTTP2_FLAG_END_STREAM &&
        nghttp2_session_get_stream_local_close(session, id) == 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t code,
                           _unused_ void *userdata)
{
    struct grpc_client_call *call = nghttp2_session_get_stream_user_data(session, stream_id);

    if (call)
        grpc_client_call_closed(call, code);
    return 0;
}

static int client_session(struct grpc_client *c, nghttp2_session **ret)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CLIENT_STREAM_WINDOW},
    };
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_session *session = NULL;

    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return -ENOMEM;
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    int r = nghttp2_session_client_new(&session, callbacks, c);
    nghttp2_session_callbacks_del(callbacks);
    if (r != 0)
        return -ENOMEM;
    if (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings)) != 0 ||
        nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, CLIENT_CONN_WINDOW) !=
            0) {
        nghttp2_session_del(session);
        return -ENOMEM;
    }
    *ret = session;
    return 0;
}

static void client_ready(struct event_fd *source, uint32_t events)
{
    struct grpc_client *c = container_of(source, struct grpc_client, transport.io);
    int r = 0, why = 0;

    grpc_client_enter(c);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        r = grpc_transport_read(&c->transport, &why);
    if (r == -EPROTO)
        grpc_client_break(c, nghttp2_strerror(why));
    else if (r == -ECONNRESET)
        grpc_client_break(c, "error reading from server: EOF");
    else if (r < 0)
        grpc_client_break(c, err_strerror(r));
    grpc_client_leave(c);
}

int grpc_client_new(struct event_loop *loop, const char *path, int timeout_ms,
                    struct grpc_client **ret, struct err *e)
{
    _close_ int fd = -EBADF;
    nghttp2_session *session = NULL;

    int r = sock_connect(path, timeout_ms, &fd);
    if (r < 0)
        return err_set(e, ERR_UNAVAILABLE, "failed to dial \"%s\": %s", path, err_strerror(r));

    struct grpc_client *c = malloc(sizeof(*c) + GRPC_TRANSPORT_SCRATCH);
    if (!c)
        return err_oom(e);
    *c = (struct grpc_client){.loop = loop};
    list_init(&c->calls);
    r = client_session(c, &session);
    if (r == 0)
        r = grpc_transport_init(&c->transport, loop, fd, session, c->scratch, client_ready);
    if (r < 0) {
        nghttp2_session_del(session);
        free(c);
        return err_errno(e, r, "set up the connection to \"%s\"", path);
    }
    TAKE_FD(fd);
    grpc_client_enter(c);
    grpc_client_leave(c);
    *ret = c;
    return 0;
}

static void client_end_calls(struct grpc_client *c)
{
    struct err e = ERR_INIT;

    err_set(&e, ERR_UNAVAILABLE, "%s", c->why);
    for (struct list *l; (l = list_pop_front(&c->calls));)
        grpc_client_call_end(container_of(l, struct grpc_client_call, link), &e);
}

static void client_broken(struct event_timer *timer)
{
    struct grpc_client *c = container_of(timer, struct grpc_client, broken);

    grpc_client_enter(c);
    client_end_calls(c);
    grpc_client_leave(c);
}

void grpc_client_break(struct grpc_client *c, const char *why)
{
    if (c->is_broken)
        return;
    c->is_broken = true;
    snprintf(c->why, sizeof(c->why), "%s", why);
    event_fd_remove(&c->transport.io);
    event_timer_arm(c->loop, &c->broken, 0, client_broken);
}

void grpc_client_enter(struct grpc_client *c)
{
    c->depth++;
}

static void client_destroy(struct grpc_client *c)
{
    event_timer_disarm(&c->broken);
    grpc_transport_done(&c->transport);
    strmap_done(&c->headers);
    free(c);
}

void grpc_client_leave(struct grpc_client *c)
{
    if (c->depth > 1) {
        c->depth--;
        return;
    }
    if (!c->is_broken) {
        int r = grpc_transport_write(&c->transport);
        if (r < 0)
            grpc_client_break(c, r == -EPIPE ? "transport is closing" : err_strerror(r));
        else if (grpc_transport_is_finished(&c->transport))
            grpc_client_break(c, "transport is closing");
    }
    c->depth--;
    if (c->is_freed)
        client_destroy(c);
}

struct grpc_client *grpc_client_free(struct grpc_client *c)
{
    if (!c || c->is_freed)
        return NULL;
    grpc_client_enter(c);
    c->is_freed = true;
    if (!c->is_broken) {
        snprintf(c->why, sizeof(c->why), "the client connection is closing");
        c->is_broken = true;
        event_fd_remove(&c->transport.io);
    }
    client_end_calls(c);
    grpc_client_leave(c);
    return NULL;
}

int grpc_client_set_header(struct grpc_client *c, const char *name, const char *value)
{
    if (value)
        return strmap_set(&c->headers, name, value);
    strmap_unset(&c->headers, name);
    return 0;
}

/* What a sync call waits for. */
struct sync {
    ProtobufCMessage *message;
    struct err e;
    bool is_failed;
    bool has_ended;
};

static void sync_message(_unused_ struct grpc_client_call *call, void *userdata,
                         ProtobufCMessage *message)
{
    struct sync *sync = userdata;

    if (sync->message) {
        pb_free(message);
        sync->is_failed = true;
        err_set(&sync->e, ERR_INTERNAL, "more than one reply came for a call that has one");
        return;
    }
    sync->message = message;
}

static void sync_end(_unused_ struct grpc_client_call *call, void *userdata, const struct err *e)
{
    struct sync *sync = userdata;

    sync->has_ended = true;
    if (e) {
        sync->is_failed = true;
        sync->e = *e;
    }
}

int grpc_client_call_sync(struct grpc_client *c, const char *method,
                          const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                          uint64_t timeout_ms, ProtobufCMessage **ret, struct err *e)
{
    struct sync sync = {};
    struct grpc_client_call *call;
    struct event_loop *loop = c->loop;

    int r = grpc_client_start(c, method, request, reply, timeout_ms, sync_message, sync_end, &sync,
                              &call, e);
    if (r < 0)
        return r;
    while (!sync.has_ended) {
        r = loop->quit ? -ECANCELED : event_loop_turn(loop, -1);
        if (r < 0 && !sync.has_ended) {
            grpc_client_call_cancel(call);
            err_errno(&sync.e, r, "wait for the answer of %s", method);
        }
    }
    if (!sync.is_failed && !sync.message) {
        sync.is_failed = true;
        err_set(&sync.e, ERR_INTERNAL, "no reply came for a call that has one");
    }
    if (sync.is_failed) {
        pb_free(sync.message);
        if (e)
            *e = sync.e;
        return ERR_RETURN;
    }
    *ret = sync.message;
    return 0;
}

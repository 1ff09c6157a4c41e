/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_conn.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/sock.h"
#include "wire/grpc_call.h"
#include "wire/grpc_dispatch.h"

#define MANNERS_UNIT 1000

static void conn_timer_fired(struct event_timer *timer);

/* Says why with GOAWAY and closes as soon as that is written. */
static void conn_dismiss(struct grpc_conn *conn, uint32_t code, const char *why)
{
    if (conn->is_closing)
        return;
    log_debug("close the connection of process %d: %s", (int)conn->account->pid, why);
    conn->is_closing = true;
    nghttp2_session_terminate_session(conn->transport.session, code);
    event_timer_arm(conn->server->loop, &conn->timer, GRPC_LINGER_MS, conn_timer_fired);
    grpc_conn_want_flush(conn);
}

/* A frame that costs us work and brings the peer nothing a polite one needs often. */
static void conn_charge_manners(struct grpc_conn *conn)
{
    uint64_t now = clock_monotonic_ms();
    uint64_t passed = MIN_OF(now - conn->manners_at_ms, (uint64_t)60000);

    conn->manners_at_ms = now;
    conn->manners += (int64_t)passed * GRPC_MANNERS_PER_S * MANNERS_UNIT / 1000;
    conn->manners = MIN_OF(conn->manners, (int64_t)GRPC_MANNERS_BURST * MANNERS_UNIT);
    conn->manners -= MANNERS_UNIT;
    if (conn->manners < 0)
        conn_dismiss(conn, NGHTTP2_ENHANCE_YOUR_CALM, "too many frames without use");
}

static int on_begin_frame(_unused_ nghttp2_session *session, const nghttp2_frame_hd *hd,
                          void *userdata)
{
    struct grpc_conn *conn = userdata;

    switch (hd->type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
    case NGHTTP2_WINDOW_UPDATE:
        break;
    default:
        conn_charge_manners(conn);
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *userdata)
{
    struct grpc_conn *conn = userdata;

    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct grpc_call *call = grpc_stream_new(conn, frame->hd.stream_id);
    if (!call) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_ENHANCE_YOUR_CALM);
        return 0;
    }
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len,
                     _unused_ uint8_t flags, _unused_ void *userdata)
{
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    if (call)
        grpc_stream_header(call, (const char *)name, name_len, (const char *)value, value_len);
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *userdata)
{
    struct grpc_conn *conn = userdata;
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    bool is_end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;

    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
        if (!conn->is_greeted) {
            conn->is_greeted = true;
            event_timer_disarm(&conn->timer);
        }
        break;
    case NGHTTP2_HEADERS:
        if (call)
            grpc_stream_headers_end(call);
        if (call && is_end)
            grpc_stream_end(call);
        break;
    case NGHTTP2_DATA:
        if (call && is_end)
            grpc_stream_end(call);
        else if (frame->hd.length <= frame->data.padlen)
            conn_charge_manners(conn);
        break;
    default:
        break;
    }
    return 0;
}

/* Streams that a peer makes us reset cost it as much as those it resets itself. */
static int on_invalid_frame(_unused_ nghttp2_session *session, _unused_ const nghttp2_frame *frame,
                            _unused_ int code, void *userdata)
{
    conn_charge_manners(userdata);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, _unused_ uint8_t flags, int32_t stream_id,
                         const uint8_t *bytes, size_t n, _unused_ void *userdata)
{
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);

    if (call)
        grpc_stream_data(call, bytes, n);
    else
        nghttp2_session_consume(session, stream_id, n);
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *userdata)
{
    struct grpc_conn *conn = userdata;

    if (frame->hd.type == NGHTTP2_DATA)
        conn->manners += MANNERS_UNIT;
    /* An answer that does not wait for the whole request: the rest is not wanted, RFC 9113 8.1. */
    if (frame->hd.type == NGHTTP2_HEADERS && frame->hd.flags & NGHTTP2_FLAG_END_STREAM &&
        nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, _unused_ uint32_t code,
                           _unused_ void *userdata)
{
    struct grpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);

    if (call) {
        nghttp2_session_set_stream_user_data(session, stream_id, NULL);
        grpc_stream_closed(call);
    }
    return 0;
}

static int conn_callbacks(nghttp2_session_callbacks **ret)
{
    int r = nghttp2_session_callbacks_new(ret);
    if (r != 0)
        return -ENOMEM;
    nghttp2_session_callbacks_set_on_begin_frame_callback(*ret, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(*ret, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(*ret, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(*ret, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(*ret, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(*ret, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_send_callback(*ret, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(*ret, on_stream_close);
    return 0;
}

static int conn_options(nghttp2_option **ret)
{
    if (nghttp2_option_new(ret) != 0)
        return -ENOMEM;
    nghttp2_option_set_no_auto_window_update(*ret, 1);
    nghttp2_option_set_no_closed_streams(*ret, 1);
    nghttp2_option_set_max_outbound_ack(*ret, 2 * GRPC_MANNERS_BURST);
    nghttp2_option_set_max_settings(*ret, 32);
    nghttp2_option_set_max_continuations(*ret, 8);
    /* Counted by our own bucket, which answers with ENHANCE_YOUR_CALM. */
    nghttp2_option_set_stream_reset_rate_limit(*ret, UINT32_MAX, UINT32_MAX);
    return 0;
}

/* The session, with SETTINGS and the connection's window ready to be sent. */
static int conn_session(struct grpc_conn *conn, nghttp2_session **ret)
{
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, GRPC_MAX_STREAMS},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, GRPC_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, GRPC_MAX_HEADER_BYTES},
    };
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;

    int r = conn_callbacks(&callbacks);
    if (r == 0)
        r = conn_options(&option);
    if (r == 0 && nghttp2_session_server_new2(&session, callbacks, conn, option) != 0)
        r = -ENOMEM;
    if (r == 0 &&
        (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings)) != 0 ||
         nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, GRPC_CONN_WINDOW) !=
             0))
        r = -ENOMEM;
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    if (r < 0) {
        nghttp2_session_del(session);
        return r;
    }
    *ret = session;
    return 0;
}

static void conn_timer_fired(struct event_timer *timer)
{
    struct grpc_conn *conn = container_of(timer, struct grpc_conn, timer);
    struct grpc_server *s = conn->server;

    grpc_server_enter(s);
    grpc_conn_free(conn);
    grpc_server_leave(s);
}

static void conn_ready(struct event_fd *source, uint32_t events)
{
    struct grpc_conn *conn = container_of(source, struct grpc_conn, transport.io);
    struct grpc_server *s = conn->server;
    int r = 0, why = 0;

    grpc_server_enter(s);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        r = grpc_transport_read(&conn->transport, &why);
    if (r < 0) {
        /* What the session still knows to say (GOAWAY) is worth one try. */
        if (why == NGHTTP2_ERR_FLOODED || why == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS)
            nghttp2_session_terminate_session(conn->transport.session, NGHTTP2_ENHANCE_YOUR_CALM);
        if (r == -EPROTO && why != NGHTTP2_ERR_BAD_CLIENT_MAGIC)
            grpc_transport_write(&conn->transport);
        grpc_conn_free(conn);
    } else {
        grpc_conn_want_flush(conn);
    }
    grpc_server_leave(s);
}

/* Admits the peer: counts it, and makes the scratch area when it is the first. */
static int conn_admit(struct grpc_server *s, int fd, struct grpc_account **ret)
{
    struct sock_peer peer;

    if (s->n_conns >= GRPC_MAX_CONNECTIONS)
        return -EUSERS;
    int r = sock_peer(fd, &peer);
    if (r < 0)
        return r;
    if (!s->scratch) {
        s->scratch = malloc(GRPC_TRANSPORT_SCRATCH);
        if (!s->scratch)
            return -ENOMEM;
    }
    return grpc_account_connect(&s->accounts, peer.pid, ret);
}

static void conn_leave(struct grpc_server *s)
{
    if (s->n_conns == 0) {
        free(s->scratch);
        s->scratch = NULL;
    }
}

int grpc_conn_new(struct grpc_server *server, int fd)
{
    nghttp2_session *session = NULL;
    struct grpc_account *account = NULL;

    int r = conn_admit(server, fd, &account);
    if (r < 0) {
        conn_leave(server);
        return r;
    }
    struct grpc_conn *conn = calloc(1, sizeof(*conn));
    r = conn ? conn_session(conn, &session) : -ENOMEM;
    if (r == 0)
        r = grpc_transport_init(&conn->transport, server->loop, fd, session, server->scratch,
                                conn_ready);
    if (r < 0) {
        nghttp2_session_del(session);
        free(conn);
        grpc_account_disconnect(account);
        conn_leave(server);
        return r;
    }

    conn->server = server;
    conn->account = account;
    list_init(&conn->calls);
    list_init(&conn->flush_link);
    conn->manners = (int64_t)GRPC_MANNERS_BURST * MANNERS_UNIT;
    conn->manners_at_ms = clock_monotonic_ms();
    list_push_back(&server->conns, &conn->link);
    server->n_conns++;
    event_timer_arm(server->loop, &conn->timer, GRPC_PREFACE_TIMEOUT_MS, conn_timer_fired);
    grpc_conn_want_flush(conn);
    return 0;
}

struct grpc_conn *grpc_conn_free(struct grpc_conn *conn)
{
    struct grpc_call *call, *next;

    if (!conn)
        return NULL;
    LIST_FOREACH_SAFE (call, next, &conn->calls, link)
        grpc_stream_closed(call);
    event_timer_disarm(&conn->timer);
    list_remove(&conn->flush_link);
    list_remove(&conn->link);
    grpc_transport_done(&conn->transport);
    grpc_account_disconnect(conn->account);
    conn->server->n_conns--;
    conn_leave(conn->server);
    grpc_server_trim_later(conn->server);
    free(conn);
    return NULL;
}

void grpc_conn_want_flush(struct grpc_conn *conn)
{
    list_remove(&conn->flush_link);
    list_push_back(&conn->server->flush, &conn->flush_link);
}

void grpc_conn_flush(struct grpc_conn *conn)
{
    int r = grpc_transport_write(&conn->transport);

    if (r == -ENOBUFS)
        log_warn("close the connection of process %d: it does not read", (int)conn->account->pid);
    if (r < 0 || grpc_transport_is_finished(&conn->transport))
        grpc_conn_free(conn);
}

void grpc_conn_shutdown(struct grpc_conn *conn)
{
    nghttp2_session *session = conn->transport.session;
    struct grpc_call *call;

    if (conn->is_closing)
        return;
    conn->is_closing = true;
    nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(session), NGHTTP2_NO_ERROR, NULL,
                          0);
    LIST_FOREACH (call, &conn->calls, link)
        grpc_call_abort(call, ERR_UNAVAILABLE, "server is shutting down");
    event_timer_arm(conn->server->loop, &conn->timer, GRPC_LINGER_MS, conn_timer_fired);
    grpc_conn_want_flush(conn);
}

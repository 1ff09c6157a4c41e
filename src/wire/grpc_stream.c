/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stream of a server connection: request headers and DATA into the call, the call's messages
 * and end out as HEADERS, DATA and trailers.
 *
 * Windows: the connection's is given back at once, so that no stream can hold up the others (what a
 * client can make us keep is capped by its account). A stream's own is given back at once while a
 * message is being assembled, since it may be larger than the window, and otherwise when the
 * messages that came have been handled.
 */
#include <stdio.h>
#include <strings.h>

#include "base/clock.h"
#include "wire/grpc_call.h"
#include "wire/grpc_dispatch.h"
#include "wire/grpc_steps.h"
#include "wire/status.h"

/* What is known of a request while its headers arrive. */
struct grpc_head {
    size_t bytes; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts, RFC 9113 6.5.2 */
    bool is_oom;
    bool is_grpc;
    bool is_timed;
    bool is_timeout_bad;
    uint64_t timeout_ms;
    char *path;
    char method[16];
    char content_type[64];
    char encoding[64];
};

static nghttp2_nv header_nv(const char *name, const char *value, size_t value_len)
{
    return (nghttp2_nv){
        .name = (uint8_t *)name,
        .namelen = strlen(name),
        .value = (uint8_t *)value,
        .valuelen = value_len,
    };
}

static nghttp2_session *call_session(const struct grpc_call *call)
{
    return call->conn->transport.session;
}

struct grpc_call *grpc_stream_new(struct grpc_conn *conn, int32_t stream_id)
{
    struct grpc_head *head = calloc(1, sizeof(*head));
    if (!head)
        return NULL;
    if (!grpc_account_open_call(conn->account)) {
        free(head);
        return NULL;
    }
    struct grpc_call *call = grpc_call_new(conn, stream_id);
    if (!call) {
        grpc_account_close_call(conn->account);
        free(head);
        return NULL;
    }
    call->head = head;
    return call;
}

static void stream_head_free(struct grpc_call *call)
{
    if (!call->head)
        return;
    free(call->head->path);
    free(call->head);
    call->head = NULL;
}

static void copy_cut(char *out, size_t size, const char *value, size_t n)
{
    n = MIN_OF(n, size - 1);
    memcpy(out, value, n);
    out[n] = '\0';
}

static bool is_grpc_content_type(const char *value)
{
    static const char prefix[] = "application/grpc";

    if (strncasecmp(value, prefix, sizeof(prefix) - 1) != 0)
        return false;
    char c = value[sizeof(prefix) - 1];
    return c == '\0' || c == '+' || c == ';';
}

void grpc_stream_header(struct grpc_call *call, const char *name, size_t name_len,
                        const char *value, size_t value_len)
{
    struct grpc_head *h = call->head;
    if (!h)
        return;

    h->bytes += name_len + value_len + 32;
    if (h->bytes > GRPC_MAX_HEADER_BYTES)
        return;
    if (strcmp(name, ":path") == 0) {
        free(h->path);
        h->path = strdup(value);
        h->is_oom |= !h->path;
    } else if (strcmp(name, ":method") == 0) {
        copy_cut(h->method, sizeof(h->method), value, value_len);
    } else if (strcmp(name, "content-type") == 0) {
        copy_cut(h->content_type, sizeof(h->content_type), value, value_len);
        h->is_grpc = is_grpc_content_type(value);
    } else if (strcmp(name, "grpc-encoding") == 0) {
        copy_cut(h->encoding, sizeof(h->encoding), value, value_len);
    } else if (strcmp(name, "grpc-timeout") == 0) {
        h->is_timed = true;
        h->is_timeout_bad |= status_timeout_parse(value, &h->timeout_ms) < 0;
    } else if (name[0] != ':') {
        h->is_oom |= grpc_headers_add(&call->headers, name, name_len, value, value_len) < 0;
    }
}

/* No method will hear of this call. */
static void stream_refuse(struct grpc_call *call, int http_status, enum err_code code,
                          const char *message)
{
    call->http_status = http_status;
    call->is_deaf = true;
    grpc_call_abort(call, code, "%s", message);
}

/* The call has failed under way: what the client still sends does not matter. */
static void stream_fail(struct grpc_call *call, enum err_code code, const char *message)
{
    call->is_deaf = true;
    grpc_decoder_done(&call->decoder);
    grpc_call_abort(call, code, "%s", message);
}

static void stream_expired(struct event_timer *timer)
{
    struct grpc_call *call = container_of(timer, struct grpc_call, timer);
    struct grpc_server *s = call->server;

    grpc_server_enter(s);
    /* Messages the client does not take would hold up the trailers for ever. */
    bool is_stuck = grpc_call_queued_bytes(call) > 0;
    stream_fail(call, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    if (is_stuck) {
        nghttp2_submit_rst_stream(call_session(call), NGHTTP2_FLAG_NONE, call->stream_id,
                                  NGHTTP2_CANCEL);
        grpc_conn_want_flush(call->conn);
    }
    grpc_server_leave(s);
}

/* The checks in grpc-go's order, with its answers. 0, or ERR_RETURN with HTTP status and e set. */
static int stream_check_head(struct grpc_call *call, int *ret_http_status, struct err *e)
{
    const struct grpc_head *h = call->head;

    *ret_http_status = 200;
    if (h->bytes > GRPC_MAX_HEADER_BYTES)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "headers of %zu bytes are over the limit of %d",
                       h->bytes, GRPC_MAX_HEADER_BYTES);
    if (h->is_oom)
        return err_oom(e);
    if (!h->is_grpc) {
        *ret_http_status = 415;
        return err_set(e, ERR_INVALID_ARGUMENT, "invalid gRPC request content-type \"%s\"",
                       h->content_type);
    }
    if (strcmp(h->method, "POST") != 0) {
        *ret_http_status = 405;
        return err_set(e, ERR_INTERNAL,
                       "Received a HEADERS frame with :method \"%s\" which should be POST",
                       h->method);
    }
    if (h->is_timeout_bad) {
        *ret_http_status = 400;
        return err_set(e, ERR_INTERNAL, "malformed grpc-timeout");
    }
    const struct grpc_method *method;
    int r = grpc_server_find(call->server, h->path ? h->path : "", &call->service, &method, e);
    if (r < 0)
        return r;
    if (h->encoding[0] && strcmp(h->encoding, "identity") != 0)
        return err_set(e, ERR_UNIMPLEMENTED,
                       "grpc: Decompressor is not installed for grpc-encoding \"%s\"", h->encoding);
    if (!grpc_steps_hold(call, sizeof(*call) + call->headers.len))
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "too many bytes are kept for this client");
    call->method = method;
    return 0;
}

void grpc_stream_headers_end(struct grpc_call *call)
{
    struct err e = ERR_INIT;
    int http_status;

    if (!call->head)
        return; /* trailers of the client */
    if (call->server->is_shutting_down)
        stream_refuse(call, 200, ERR_UNAVAILABLE, "server is shutting down");
    else if (stream_check_head(call, &http_status, &e) < 0)
        stream_refuse(call, http_status, e.code, e.msg);
    else if (call->head->is_timed && call->head->timeout_ms == 0)
        stream_refuse(call, 200, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    else if (call->head->is_timed) {
        uint64_t ms = call->head->timeout_ms;
        call->deadline_ms = clock_monotonic_ms() + ms;
        event_timer_arm(call->server->loop, &call->timer, ms, stream_expired);
    }
    stream_head_free(call);
}

/* Answers what the decoder refuses. */
static void stream_fail_frame(struct grpc_call *call, int r)
{
    char message[128];

    if (r == -EMSGSIZE) {
        snprintf(message, sizeof(message), "grpc: received message larger than max (%u vs. %zu)",
                 grpc_decoder_length(&call->decoder), call->decoder.max);
        stream_fail(call, ERR_RESOURCE_EXHAUSTED, message);
    } else if (r == -ENOTSUP && grpc_decoder_flag(&call->decoder) == 1) {
        stream_fail(call, ERR_UNIMPLEMENTED,
                    "grpc: Decompressor is not installed for grpc-encoding \"\"");
    } else if (r == -ENOTSUP) {
        snprintf(message, sizeof(message), "grpc: received unexpected payload format %u",
                 grpc_decoder_flag(&call->decoder));
        stream_fail(call, ERR_INTERNAL, message);
    } else if (r == -EEXIST) {
        stream_fail(call, ERR_INTERNAL, "more than one request message for a call that takes one");
    } else if (r == -ENOBUFS) {
        stream_fail(call, ERR_RESOURCE_EXHAUSTED, "too many bytes are kept for this client");
    } else {
        stream_fail(call, ERR_RESOURCE_EXHAUSTED, "out of memory");
    }
}

/* Takes the messages out of n bytes. 0, or what stream_fail_frame() takes. */
static int stream_feed(struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    if (!grpc_steps_hold(call, n))
        return -ENOBUFS;
    while (n > 0) {
        size_t used;
        int r = grpc_decoder_feed(&call->decoder, bytes, n, &used);
        if (r < 0)
            return r;
        if (r > 0) {
            uint8_t *payload;
            size_t size;
            grpc_decoder_take(&call->decoder, &payload, &size);
            r = grpc_steps_message(call, payload, size);
            if (r < 0)
                return r;
        }
        bytes += used;
        n -= used;
    }
    return 0;
}

void grpc_stream_data(struct grpc_call *call, const uint8_t *bytes, size_t n)
{
    nghttp2_session *session = call_session(call);
    bool is_behind = false;

    nghttp2_session_consume_connection(session, n);
    if (!call->is_deaf) {
        int r = stream_feed(call, bytes, n);
        if (r < 0)
            stream_fail_frame(call, r);
    }
    if (!call->is_deaf && call->method->kind == GRPC_BIDI) {
        pthread_mutex_lock(&call->lock);
        is_behind = call->backlog > 0 && !call->is_over;
        pthread_mutex_unlock(&call->lock);
    }
    if (is_behind)
        call->unacked += n;
    else
        nghttp2_session_consume_stream(session, call->stream_id, n);
}

void grpc_stream_end(struct grpc_call *call)
{
    if (call->is_deaf)
        return;
    if (grpc_decoder_is_partial(&call->decoder))
        stream_fail(call, ERR_INTERNAL, "unexpected EOF");
    else if (grpc_steps_half_close(call) < 0)
        stream_fail(call, ERR_INTERNAL, "no request message for a call that takes one");
}

void grpc_stream_closed(struct grpc_call *call)
{
    size_t unsent = call->sending.bytes;

    event_timer_disarm(&call->timer);
    list_remove(&call->link);
    call->conn = NULL;
    call->is_deaf = true;
    stream_head_free(call);
    grpc_decoder_done(&call->decoder);
    grpc_queue_clear(&call->sending);
    grpc_call_lost(call);
    if (unsent > 0)
        grpc_call_sent(call, unsent);
    grpc_call_unref(call);
}

/* grpc-status and grpc-message; text is what they point into. Returns how many. */
static size_t stream_trailers(const struct grpc_call *call, nghttp2_nv nv[2], char status[16],
                              char *message, size_t message_size)
{
    int n = snprintf(status, 16, "%d", (int)call->code);
    nv[0] = header_nv("grpc-status", status, (size_t)n);
    if (!call->status_message)
        return 1;
    size_t len = status_message_encode(call->status_message, message, message_size);
    nv[1] = header_nv("grpc-message", message, len);
    return 2;
}

static int stream_submit_trailers(struct grpc_call *call)
{
    char status[16], message[3 * ERR_MSG_MAX];
    nghttp2_nv nv[2];

    size_t n = stream_trailers(call, nv, status, message, sizeof(message));
    return nghttp2_submit_trailer(call_session(call), call->stream_id, nv, n);
}

static ssize_t stream_draw(_unused_ nghttp2_session *session, _unused_ int32_t stream_id,
                           uint8_t *out, size_t size, uint32_t *flags, nghttp2_data_source *source,
                           _unused_ void *userdata)
{
    struct grpc_call *call = source->ptr;

    size_t n = grpc_queue_read(&call->sending, out, size);
    if (n > 0)
        grpc_call_sent(call, n);
    if (!grpc_queue_is_empty(&call->sending))
        return (ssize_t)n;
    if (call->is_ending) {
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (stream_submit_trailers(call) != 0)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        return (ssize_t)n;
    }
    if (n == 0) {
        call->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

/* The response HEADERS; without anything to send they carry the end as well ("trailers-only"). */
static int stream_respond(struct grpc_call *call)
{
    char http_status[16], status[16], message[3 * ERR_MSG_MAX];
    nghttp2_nv nv[4];
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = stream_draw};
    bool has_body = !grpc_queue_is_empty(&call->sending);

    int len = snprintf(http_status, sizeof(http_status), "%d", call->http_status);
    nv[0] = header_nv(":status", http_status, (size_t)len);
    nv[1] = header_nv("content-type", "application/grpc", strlen("application/grpc"));
    size_t n = 2;
    if (!has_body)
        n += stream_trailers(call, nv + n, status, message, sizeof(message));
    call->is_responded = true;
    return nghttp2_submit_response(call_session(call), call->stream_id, nv, n,
                                   has_body ? &body : NULL);
}

void grpc_stream_sync(struct grpc_call *call)
{
    pthread_mutex_lock(&call->lock);
    grpc_queue_move(&call->sending, &call->outbox);
    size_t handled = MIN_OF(call->handled_bytes, call->unacked);
    if (call->backlog == 0 || call->is_over)
        handled = call->unacked;
    call->handled_bytes = 0;
    bool is_ended = call->is_ended;
    if (call->is_over)
        call->is_deaf = true;
    pthread_mutex_unlock(&call->lock);

    if (!call->conn) {
        size_t unsent = call->sending.bytes;
        grpc_queue_clear(&call->sending);
        if (unsent > 0)
            grpc_call_sent(call, unsent);
        return;
    }
    call->unacked -= handled;
    nghttp2_session *session = call_session(call);
    if (handled > 0)
        nghttp2_session_consume_stream(session, call->stream_id, handled);

    int r = 0;
    bool has_news = !grpc_queue_is_empty(&call->sending) || (is_ended && !call->is_ending);
    call->is_ending = is_ended;
    if (has_news && !call->is_responded) {
        r = stream_respond(call);
    } else if (has_news && call->is_deferred) {
        call->is_deferred = false;
        r = nghttp2_session_resume_data(session, call->stream_id);
    }
    if (r != 0)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, call->stream_id,
                                  NGHTTP2_INTERNAL_ERROR);
    grpc_conn_want_flush(call->conn);
}

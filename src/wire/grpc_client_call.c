/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_client_call.h"

#include <stdio.h>

#include "base/str.h"
#include "wire/pb.h"
#include "wire/status.h"

/* Headers of a request: ours and at most this many of the client's. */
#define CLIENT_HEADERS_MAX 32
#define OWN_HEADERS 8

static void call_ref(struct grpc_client_call *call)
{
    call->refs++;
}

static void call_unref(struct grpc_client_call *call)
{
    if (--call->refs > 0)
        return;
    grpc_decoder_done(&call->decoder);
    grpc_queue_clear(&call->sending);
    free(call);
}

void grpc_client_call_end(struct grpc_client_call *call, const struct err *e)
{
    struct grpc_client *c = call->client;

    if (!c)
        return;
    list_remove(&call->link);
    c->n_calls--;
    event_timer_disarm(&call->timer);
    nghttp2_session_set_stream_user_data(c->transport.session, call->stream_id, NULL);
    /* The session may still draw from us until the stream is closed; it finds nothing. */
    grpc_queue_clear(&call->sending);
    call->client = NULL;
    if (call->end)
        call->end(call, call->userdata, e);
    call_unref(call);
}

/* Ends the call and tells the server to stop. */
static void call_fail(struct grpc_client_call *call, enum err_code code, const char *message)
{
    struct grpc_client *c = call->client;
    struct err e = ERR_INIT;

    if (!c)
        return;
    err_set(&e, code, "%s", message);
    if (!c->is_broken)
        nghttp2_submit_rst_stream(c->transport.session, NGHTTP2_FLAG_NONE, call->stream_id,
                                  NGHTTP2_CANCEL);
    grpc_client_call_end(call, &e);
}

void grpc_client_call_cancel(struct grpc_client_call *call)
{
    struct grpc_client *c = call->client;

    if (!c)
        return;
    grpc_client_enter(c);
    call_fail(call, ERR_CANCELED, "context canceled");
    grpc_client_leave(c);
}

static void call_expired(struct event_timer *timer)
{
    struct grpc_client_call *call = container_of(timer, struct grpc_client_call, timer);
    struct grpc_client *c = call->client;

    grpc_client_enter(c);
    call_fail(call, ERR_DEADLINE_EXCEEDED, "context deadline exceeded");
    grpc_client_leave(c);
}

void grpc_client_call_header(struct grpc_client_call *call, const char *name, const char *value)
{
    uint32_t number;

    if (strcmp(name, ":status") == 0) {
        call->http_status = str_to_u32(value, &number) == 0 && number < 1000 ? (int)number : 0;
    } else if (strcmp(name, "grpc-status") == 0) {
        bool is_known = str_to_u32(value, &number) == 0 && number <= ERR_UNAUTHENTICATED;
        call->grpc_status = is_known ? (int)number : ERR_UNKNOWN;
    } else if (strcmp(name, "grpc-message") == 0) {
        snprintf(call->message_text, sizeof(call->message_text), "%s", value);
        status_message_decode(call->message_text);
    }
}

/* Unpacks and delivers one message; false when the call is over. */
static bool call_deliver(struct grpc_client_call *call)
{
    ProtobufCMessage *message = NULL;
    struct err e = ERR_INIT;
    uint8_t *bytes;
    size_t n;

    grpc_decoder_take(&call->decoder, &bytes, &n);
    int r = pb_unpack(call->reply, bytes, n, &message, &e);
    free(bytes);
    if (r < 0) {
        call_fail(call, ERR_INTERNAL, e.msg);
        return false;
    }
    if (call->message)
        call->message(call, call->userdata, message);
    else
        pb_free(message);
    return call->client != NULL;
}

void grpc_client_call_data(struct grpc_client_call *call, const uint8_t *bytes, size_t n)
{
    call_ref(call);
    while (n > 0) {
        size_t used;
        int r = grpc_decoder_feed(&call->decoder, bytes, n, &used);
        if (r < 0) {
            if (r == -EMSGSIZE)
                call_fail(call, ERR_RESOURCE_EXHAUSTED, "received message larger than max");
            else if (r == -ENOTSUP)
                call_fail(call, ERR_INTERNAL, "the server sent a compressed message");
            else
                call_fail(call, ERR_RESOURCE_EXHAUSTED, "out of memory");
            break;
        }
        if (r > 0 && !call_deliver(call))
            break;
        bytes += used;
        n -= used;
    }
    call_unref(call);
}

/* A stream that ended without grpc-status: what HTTP/2 and HTTP tell instead, as gRPC maps them. */
static void call_err_from_http(const struct grpc_client_call *call, uint32_t http2_code,
                               struct err *e)
{
    switch (http2_code) {
    case NGHTTP2_NO_ERROR:
        break;
    case NGHTTP2_CANCEL:
        err_set(e, ERR_CANCELED, "the server cancelled the stream");
        return;
    case NGHTTP2_REFUSED_STREAM:
        err_set(e, ERR_UNAVAILABLE, "the server refused the stream");
        return;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        err_set(e, ERR_RESOURCE_EXHAUSTED, "the server asks for fewer calls");
        return;
    default:
        err_set(e, ERR_INTERNAL, "stream terminated by RST_STREAM with error code: %s",
                nghttp2_http2_strerror(http2_code));
        return;
    }
    switch (call->http_status) {
    case 200:
        err_set(e, ERR_INTERNAL, "server closed the stream without sending trailers");
        break;
    case 404:
        err_set(e, ERR_UNIMPLEMENTED, "unexpected HTTP status code received from server: 404");
        break;
    case 429:
    case 502:
    case 503:
    case 504:
        err_set(e, ERR_UNAVAILABLE, "unexpected HTTP status code received from server: %d",
                call->http_status);
        break;
    default:
        err_set(e, ERR_UNKNOWN, "unexpected HTTP status code received from server: %d",
                call->http_status);
    }
}

void grpc_client_call_closed(struct grpc_client_call *call, uint32_t http2_code)
{
    struct err e = ERR_INIT;

    if (call->grpc_status == ERR_OK && grpc_decoder_is_partial(&call->decoder))
        err_set(&e, ERR_INTERNAL, "unexpected EOF");
    else if (call->grpc_status > 0)
        err_set(&e, (enum err_code)call->grpc_status, "%s", call->message_text);
    else if (call->grpc_status < 0)
        call_err_from_http(call, http2_code, &e);
    grpc_client_call_end(call, e.code == ERR_OK ? NULL : &e);
}

static ssize_t call_draw(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t size,
                         uint32_t *flags, _unused_ nghttp2_data_source *source,
                         _unused_ void *userdata)
{
    struct grpc_client_call *call = nghttp2_session_get_stream_user_data(session, stream_id);

    if (!call) /* it has ended, RST_STREAM follows */
        return NGHTTP2_ERR_DEFERRED;
    size_t n = grpc_queue_read(&call->sending, out, size);
    if (grpc_queue_is_empty(&call->sending) && call->is_send_closed) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    } else if (n == 0) {
        call->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

static void call_resume(struct grpc_client_call *call)
{
    if (!call->is_deferred)
        return;
    call->is_deferred = false;
    nghttp2_session_resume_data(call->client->transport.session, call->stream_id);
}

static nghttp2_nv header_nv(const char *name, const char *value)
{
    return (nghttp2_nv){
        .name = (uint8_t *)name,
        .namelen = strlen(name),
        .value = (uint8_t *)value,
        .valuelen = strlen(value),
    };
}

/* grpc-timeout has at most 8 digits. */
static void format_timeout(uint64_t timeout_ms, char out[16])
{
    uint64_t seconds = MIN_OF(timeout_ms / 1000, UINT64_C(99999999));

    if (timeout_ms <= 99999999)
        snprintf(out, 16, "%um", (unsigned)timeout_ms);
    else
        snprintf(out, 16, "%uS", (unsigned)seconds);
}

static int call_submit(struct grpc_client_call *call, const char *method, uint64_t timeout_ms)
{
    struct grpc_client *c = call->client;
    nghttp2_data_provider body = {.read_callback = call_draw};
    nghttp2_nv nv[OWN_HEADERS + CLIENT_HEADERS_MAX];
    char timeout[16];
    size_t n = 0;

    nv[n++] = header_nv(":method", "POST");
    nv[n++] = header_nv(":scheme", "http");
    nv[n++] = header_nv(":path", method);
    nv[n++] = header_nv(":authority", "localhost");
    nv[n++] = header_nv("content-type", "application/grpc");
    nv[n++] = header_nv("user-agent", "grpc-c-wherry/" WHERRY_VERSION);
    nv[n++] = header_nv("te", "trailers");
    if (timeout_ms > 0) {
        format_timeout(timeout_ms, timeout);
        nv[n++] = header_nv("grpc-timeout", timeout);
    }
    STRMAP_FOREACH (it, &c->headers)
        if (n < ARRAY_SIZE(nv))
            nv[n++] = header_nv(it->key, it->value);
    call->stream_id = nghttp2_submit_request(c->transport.session, NULL, nv, n, &body, call);
    return call->stream_id < 0 ? -ENOMEM : 0;
}

/* A call with its stream submitted and nothing written yet. */
static int call_new(struct grpc_client *c, const char *method,
                    const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms,
                    grpc_client_message_fn message, grpc_client_end_fn end, void *userdata,
                    struct grpc_client_call **ret, struct err *e)
{
    if (c->is_broken)
        return err_set(e, ERR_UNAVAILABLE, "%s", c->why);
    if (c->n_calls >= GRPC_CLIENT_MAX_CALLS)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d open calls", GRPC_CLIENT_MAX_CALLS);

    struct grpc_client_call *call = malloc(sizeof(*call));
    if (!call)
        return err_oom(e);
    *call = (struct grpc_client_call){
        .refs = 1,
        .client = c,
        .reply = reply,
        .message = message,
        .end = end,
        .userdata = userdata,
        .grpc_status = -1,
    };
    grpc_decoder_init(&call->decoder, GRPC_CLIENT_MESSAGE_MAX);
    int r = call_submit(call, method, timeout_ms);
    if (r < 0) {
        free(call);
        return err_set(e, ERR_UNAVAILABLE, "the connection takes no further calls");
    }
    list_push_back(&c->calls, &call->link);
    c->n_calls++;
    if (timeout_ms > 0)
        event_timer_arm(c->loop, &call->timer, timeout_ms, call_expired);
    *ret = call;
    return 0;
}

static int call_pack(const ProtobufCMessage *message, struct grpc_chunk **ret, struct err *e)
{
    size_t size;

    int r = grpc_chunk_new(message, GRPC_CLIENT_MESSAGE_MAX, ret, &size);
    if (r == -EMSGSIZE)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "trying to send message larger than max (%zu vs. %u)", size,
                       GRPC_CLIENT_MESSAGE_MAX);
    return r < 0 ? err_oom(e) : 0;
}

int grpc_client_start(struct grpc_client *c, const char *method, const ProtobufCMessage *request,
                      const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms,
                      grpc_client_message_fn message, grpc_client_end_fn end, void *userdata,
                      struct grpc_client_call **ret, struct err *e)
{
    struct grpc_chunk *chunk;
    struct grpc_client_call *call;

    int r = call_pack(request, &chunk, e);
    if (r < 0)
        return r;
    grpc_client_enter(c);
    r = call_new(c, method, reply, timeout_ms, message, end, userdata, &call, e);
    if (r < 0) {
        free(chunk);
    } else {
        grpc_queue_push(&call->sending, chunk);
        call->is_send_closed = true;
        *ret = call;
    }
    grpc_client_leave(c);
    return r;
}

int grpc_client_open(struct grpc_client *c, const char *method,
                     const ProtobufCMessageDescriptor *reply, grpc_client_message_fn message,
                     grpc_client_end_fn end, void *userdata, struct grpc_client_call **ret,
                     struct err *e)
{
    grpc_client_enter(c);
    int r = call_new(c, method, reply, 0, message, end, userdata, ret, e);
    grpc_client_leave(c);
    return r;
}

int grpc_client_call_send(struct grpc_client_call *call, const ProtobufCMessage *message,
                          struct err *e)
{
    struct grpc_client *c = call->client;
    struct grpc_chunk *chunk;

    if (!c || c->is_broken || call->is_send_closed)
        return err_set(e, ERR_UNAVAILABLE, "the call is over");
    int r = call_pack(message, &chunk, e);
    if (r < 0)
        return r;
    grpc_client_enter(c);
    grpc_queue_push(&call->sending, chunk);
    call_resume(call);
    grpc_client_leave(c);
    return 0;
}

size_t grpc_client_call_queued_bytes(const struct grpc_client_call *call)
{
    return call->sending.bytes;
}

void grpc_client_call_close_send(struct grpc_client_call *call)
{
    struct grpc_client *c = call->client;

    if (!c || c->is_broken)
        return;
    grpc_client_enter(c);
    call->is_send_closed = true;
    call_resume(call);
    grpc_client_leave(c);
}

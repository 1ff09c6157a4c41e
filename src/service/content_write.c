/* SPDX-License-Identifier: Apache-2.0 */
#include "service/content_write.h"

#include "base/log.h"
#include "base/str.h"
#include "service/context.h"
#include "services.content.v1.pb-c.h"
#include "store/content.h"
#include "store/gc.h"
#include "wire/pb.h"

struct writing {
    struct service_context *ctx;
    struct content_writer *writer; /* NULL once it is let go */
    char *ns, *ref;
    char *expected; /* newest that was given, NULL: none */
    int64_t total;  /* the same, 0: none */
};

static void writing_release(void *state)
{
    struct writing *w = state;

    content_writer_close(w->writer);
    free(w->ns);
    free(w->ref);
    free(w->expected);
    free(w);
}

static void finish(struct writing *w, struct grpc_call *call, const struct err *e)
{
    w->writer = content_writer_close(w->writer);
    grpc_call_finish(call, e);
}

/* What the client expects is there already: nothing needs to be written, and the ingest is given
 * up. */
static int check_expected(struct writing *w, const char *expected, struct err *e)
{
    _cleanup_(content_info_done) struct content_info i = {};
    struct err ignored = ERR_INIT;
    char *copy;

    if (str_empty(expected))
        return 0;
    copy = strdup(expected);
    if (!copy)
        return err_oom(e);
    free(w->expected);
    w->expected = copy;
    if (content_stat(w->ctx->content, w->ns, expected, &i, &ignored) < 0)
        return 0;
    w->writer = content_writer_close(w->writer);
    if (content_abort(w->ctx->content, w->ns, w->ref, &ignored) < 0)
        log_debug("abort of ref %s: %s", w->ref, ignored.msg);
    return err_set(e, ERR_ALREADY_EXISTS, "blob with expected digest %s exists", expected);
}

static int write_data(struct writing *w, const Pb__Content__WriteContentRequest *req,
                      int64_t current, struct err *e)
{
    int r = 0;

    if (req->offset != 0 && req->offset != current)
        return err_set(e, ERR_OUT_OF_RANGE, "write @%lld must occur at current offset %lld",
                       (long long)req->offset, (long long)current);
    if (req->offset == 0 && current > 0)
        r = content_writer_truncate(w->writer, e);
    if (r >= 0 && req->data.len > 0)
        r = content_writer_write(w->writer, req->data.data, req->data.len, e);
    return r;
}

static int commit(struct writing *w, const Pb__Content__WriteContentRequest *req, char **ret_digest,
                  struct err *e)
{
    _cleanup_(strmap_done) struct strmap labels = {};
    int r;

    if (pb_strmap_get((void *const *)req->labels, req->n_labels, &labels) < 0)
        return err_oom(e);
    r = content_writer_commit(w->writer, w->total, w->expected, &labels, ret_digest, e);
    if (r >= 0)
        gc_notify_mutation(w->ctx->gc);
    return r;
}

/* Does what the message asks for. The digest goes with STAT, when there are bytes, and with COMMIT.
 */
static int act(struct writing *w, const Pb__Content__WriteContentRequest *req,
               struct content_status *st, char **ret_digest, struct err *e)
{
    int r = content_writer_status(w->writer, st, e);

    if (r < 0)
        return r;
    switch (req->action) {
    case PB__CONTENT__WRITE_ACTION__STAT:
        return content_writer_digest(w->writer, ret_digest, e);
    case PB__CONTENT__WRITE_ACTION__WRITE:
    case PB__CONTENT__WRITE_ACTION__COMMIT:
        r = write_data(w, req, st->offset, e);
        break;
    default:
        return err_set(e, ERR_INVALID_ARGUMENT, "unknown write action %d: invalid argument",
                       (int)req->action);
    }
    content_status_done(st);
    if (r >= 0)
        r = content_writer_status(w->writer, st, e);
    if (r < 0)
        return r;
    if (req->action == PB__CONTENT__WRITE_ACTION__COMMIT)
        return commit(w, req, ret_digest, e);
    return content_writer_digest(w->writer, ret_digest, e);
}

static int answer(struct writing *w, struct grpc_call *call, Pb__Content__WriteAction action,
                  const struct content_status *st, char *digest)
{
    Pb__Content__WriteContentResponse m = PB__CONTENT__WRITE_CONTENT_RESPONSE__INIT;
    int r = -ENOMEM;

    m.action = action;
    m.offset = st->offset;
    m.total = w->total > 0 ? w->total : st->total;
    m.started_at = pb_timestamp_new(st->started_at);
    m.updated_at = pb_timestamp_new(st->updated_at);
    if (digest)
        m.digest = digest;
    if (m.started_at && m.updated_at)
        r = grpc_call_send(call, &m.base);
    pb_free((ProtobufCMessage *)m.started_at);
    pb_free((ProtobufCMessage *)m.updated_at);
    return r;
}

static void writing_message(struct grpc_call *call, void *state, const ProtobufCMessage *message)
{
    const Pb__Content__WriteContentRequest *req = (const void *)message;
    _cleanup_(content_status_done) struct content_status st = {};
    struct writing *w = state;
    _free_ char *digest = NULL;
    struct err e = ERR_INIT;
    int r;

    if (!w->writer)
        return;
    r = check_expected(w, req->expected, &e);
    if (r >= 0) {
        if (req->total > 0)
            w->total = req->total;
        r = act(w, req, &st, &digest, &e);
    }
    if (r < 0) {
        finish(w, call, &e);
        return;
    }
    if (req->action == PB__CONTENT__WRITE_ACTION__COMMIT)
        w->writer = content_writer_close(w->writer);
    r = answer(w, call, req->action, &st, digest);
    if (r < 0) {
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "no room for the answer to a write");
        finish(w, call, &e);
    } else if (!w->writer) {
        grpc_call_finish(call, NULL);
    }
}

static void writing_half_closed(struct grpc_call *call, void *state)
{
    finish(state, call, NULL);
}

static void writing_cancelled(struct grpc_call *call, void *state)
{
    struct writing *w = state;

    w->writer = content_writer_close(w->writer);
}

static const struct grpc_stream_ops writing_ops = {
    .message = writing_message,
    .half_closed = writing_half_closed,
    .cancelled = writing_cancelled,
    .release = writing_release,
};

static int writing_open(struct writing *w, struct grpc_call *call,
                        const Pb__Content__WriteContentRequest *req, struct err *e)
{
    const char *ns;
    int r;

    if ((r = service_namespace(call, &ns, e)) < 0)
        return r;
    if (!req || str_empty(req->ref))
        return err_set(e, ERR_INVALID_ARGUMENT, "first message must have a reference");
    w->ns = strdup(ns);
    w->ref = strdup(req->ref);
    if (!w->ns || !w->ref)
        return err_oom(e);
    return content_writer_open(w->ctx->content, ns, service_lease(call), req->ref, req->total,
                               req->expected, &w->writer, e);
}

void content_write(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct writing *w = calloc(1, sizeof(*w));
    struct err e = ERR_INIT;
    int r = w ? 0 : err_oom(&e);

    if (r >= 0) {
        w->ctx = grpc_call_userdata(call);
        grpc_call_set_stream(call, &writing_ops, w);
        r = writing_open(w, call, (const void *)request, &e);
    }
    if (r < 0)
        grpc_call_finish(call, &e);
    else
        writing_message(call, w, request);
}

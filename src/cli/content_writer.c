/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/content_writer.h"

#include <stdio.h>

#include "base/str.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "oci/sha256.h"
#include "services.content.v1.pb-c.h"

static void on_message(struct grpc_client_call *call, void *userdata, ProtobufCMessage *m)
{
    struct content_writer *w = userdata;
    const Pb__Content__WriteContentResponse *reply = (const Pb__Content__WriteContentResponse *)m;

    if (reply->action == PB__CONTENT__WRITE_ACTION__COMMIT && digest_is_valid(reply->digest))
        snprintf(w->digest, sizeof(w->digest), "%s", reply->digest);
    pb_free(m);
}

static void on_end(struct grpc_client_call *call, void *userdata, const struct err *e)
{
    struct content_writer *w = userdata;

    w->call = NULL;
    if (e)
        w->err = *e;
    else if (!w->committing)
        err_set(&w->err, ERR_INTERNAL, "the daemon ended the write before it was committed");
}

int content_writer_open(struct content_writer *w, struct cli *cli, const char *ref,
                        const char *expected, int64_t total, struct err *e)
{
    int r = cli_connect(cli, e);

    if (r < 0)
        return r;
    *w = (struct content_writer){.cli = cli, .total = total, .is_first = true};
    w->ref = strdup(ref);
    w->expected = strdup(expected);
    if (!w->ref || !w->expected)
        return err_oom(e);
    return grpc_client_open(cli->client, "/containerd.services.content.v1.Content/Write",
                            &pb__content__write_content_response__descriptor, on_message, on_end, w,
                            &w->call, e);
}

static bool is_there(const struct content_writer *w)
{
    return w->err.code == ERR_ALREADY_EXISTS;
}

static int failure(const struct content_writer *w, struct err *e)
{
    if (w->err.code == ERR_OK || is_there(w))
        return 0;
    *e = w->err;
    return ERR_RETURN;
}

static int send(struct content_writer *w, Pb__Content__WriteAction action, const void *bytes,
                size_t n, struct err *e)
{
    Pb__Content__WriteContentRequest request = PB__CONTENT__WRITE_CONTENT_REQUEST__INIT;
    int r;

    request.action = action;
    request.offset = w->offset;
    request.data.data = (uint8_t *)bytes;
    request.data.len = n;
    if (w->is_first || action == PB__CONTENT__WRITE_ACTION__COMMIT) {
        request.ref = w->ref;
        request.total = w->total;
        request.expected = w->expected;
    }
    w->is_first = false;
    r = grpc_client_call_send(w->call, &request.base, e);
    w->offset += (int64_t)n;
    return r;
}

int content_writer_write(struct content_writer *w, const void *bytes, size_t n, struct err *e)
{
    int r = 0;

    if (w->call && n > 0)
        r = send(w, PB__CONTENT__WRITE_ACTION__WRITE, bytes, n, e);
    while (r >= 0 && w->call && grpc_client_call_queued_bytes(w->call) > CONTENT_WRITER_QUEUE_MAX) {
        r = event_loop_turn(&w->cli->loop, -1);
        if (w->cli->interrupted)
            return err_set(e, ERR_CANCELED, "interrupted");
    }
    if (!w->call)
        return failure(w, e);
    return r < 0 ? r : 0;
}

int content_writer_commit(struct content_writer *w, struct err *e)
{
    int r = 0;

    w->committing = true;
    if (w->call)
        r = send(w, PB__CONTENT__WRITE_ACTION__COMMIT, NULL, 0, e);
    while (r >= 0 && w->call) {
        r = event_loop_turn(&w->cli->loop, -1);
        if (w->cli->interrupted)
            return err_set(e, ERR_CANCELED, "interrupted");
    }
    if (r < 0)
        return r;
    r = failure(w, e);
    if (r == 0 && !*w->digest)
        snprintf(w->digest, sizeof(w->digest), "%s", w->expected);
    if (r == 0 && !*w->digest)
        return err_set(e, ERR_INTERNAL, "the daemon did not say the digest of what was written");
    return r;
}

void content_writer_done(struct content_writer *w)
{
    Pb__Content__AbortRequest request = PB__CONTENT__ABORT_REQUEST__INIT;
    struct err ignored = ERR_INIT;
    bool finishing;

    if (w->call) {
        finishing = w->cli->finishing;
        w->cli->finishing = true;
        grpc_client_call_cancel(w->call);
        request.ref = w->ref;
        RPC_EMPTY(w->cli, "content.v1.Content/Abort", &request, &ignored);
        w->cli->finishing = finishing;
    }
    free(w->ref);
    free(w->expected);
    *w = (struct content_writer){};
}

int content_write_bytes(struct cli *cli, const char *ref, const void *bytes, size_t n,
                        char ret_digest[DIGEST_STR_MAX], struct err *e)
{
    _cleanup_(content_writer_done) struct content_writer w = {};
    uint8_t hash[SHA256_SIZE];
    int r;

    sha256(bytes, n, hash);
    digest_format(DIGEST_SHA256, hash, ret_digest);
    r = content_writer_open(&w, cli, ref, ret_digest, (int64_t)n, e);
    if (r == 0)
        r = content_writer_write(&w, bytes, n, e);
    return r < 0 ? r : content_writer_commit(&w, e);
}

int content_set_labels(struct cli *cli, const char *digest, const struct strmap *labels,
                       struct err *e)
{
    Pb__Content__UpdateRequest request = PB__CONTENT__UPDATE_REQUEST__INIT;
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    _cleanup_(strv_freep) char **paths = NULL;
    _reply_ Pb__Content__Info *info = NULL;

    info = calloc(1, sizeof(*info));
    if (!info)
        return err_oom(e);
    pb__content__info__init(info);
    info->digest = strdup(digest);
    if (!info->digest || pb_strmap_new(labels, &pb__content__info__labels_entry__descriptor,
                                       (void ***)(void *)&info->labels, &info->n_labels) < 0)
        return err_oom(e);
    STRMAP_FOREACH (l, labels) {
        _free_ char *path = str_printf("labels.%s", l->key);
        if (!path || strv_push(&paths, path) < 0)
            return err_oom(e);
    }
    mask.paths = paths;
    mask.n_paths = strv_len(paths);
    request.info = info;
    request.update_mask = &mask;
    return RPC(cli, "content.v1.Content/Update", &request, pb__content__update_response, NULL, e);
}

int content_exists(struct cli *cli, const char *digest, struct err *e)
{
    Pb__Content__InfoRequest request = PB__CONTENT__INFO_REQUEST__INIT;
    int r;

    request.digest = (char *)digest;
    r = RPC(cli, "content.v1.Content/Info", &request, pb__content__info_response, NULL, e);
    if (r < 0 && e->code == ERR_NOT_FOUND)
        return 0;
    return r < 0 ? r : 1;
}

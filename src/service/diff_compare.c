/* SPDX-License-Identifier: Apache-2.0 */
#include "service/diff_compare.h"

#include <stdio.h>
#include <sys/random.h>

#include "base/str.h"
#include "service/blob.h"
#include "service/context.h"
#include "service/mount_message.h"
#include "service/temp_mount.h"
#include "services.diff.v1.pb-c.h"
#include "wire/pb.h"

#define LEFT 0
#define RIGHT 1
#define REF_MAX 64

/* A Diff under way. */
struct compare {
    struct blob_place place;
    struct blob_layer layer;
    struct mount_list lists[2]; /* LEFT, RIGHT */
    struct strmap labels;
    char ref[REF_MAX]; /* made up where the client has none */
    struct descriptor result;
};

static void compare_done(struct compare *c)
{
    mount_list_done(&c->lists[LEFT]);
    mount_list_done(&c->lists[RIGHT]);
    strmap_done(&c->labels);
    descriptor_done(&c->result);
}

/* Only OCI's types: what Docker's gzip type holds is for the reader to find out, not to be written.
 */
static int choose_format(const char *media_type, struct blob_layer *layer, struct err *e)
{
    static const struct {
        const char *media_type, *format;
    } formats[] = {
        {MEDIA_TYPE_OCI_LAYER, "tar"},
        {MEDIA_TYPE_OCI_LAYER_GZIP, "gzip"},
        {MEDIA_TYPE_OCI_LAYER_ZSTD, "zstd"},
    };

    layer->media_type = str_empty(media_type) ? MEDIA_TYPE_OCI_LAYER_GZIP : media_type;
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (str_eq(layer->media_type, formats[i].media_type)) {
            layer->format = formats[i].format;
            return 0;
        }
    }
    return err_set(e, ERR_UNIMPLEMENTED, "unsupported diff media type: %s: not implemented",
                   layer->media_type);
}

static void make_up_ref(char out[REF_MAX])
{
    struct timespec now = clock_realtime();
    uint8_t bytes[8] = {0};
    char hex[2 * sizeof(bytes) + 1];

    (void)!getrandom(bytes, sizeof(bytes), 0);
    str_hex(bytes, sizeof(bytes), hex);
    snprintf(out, REF_MAX, "diff-%lld-%s", (long long)now.tv_sec, hex);
}

static int read_mounts(Pb__Types__Mount *const *from, size_t n, struct mount_list *ret,
                       struct err *e)
{
    int r = mount_message_read_list(from, n, ret, e);

    if (r < 0)
        return r;
    return temp_mount_make_read_only(ret) < 0 ? err_oom(e) : 0;
}

static int read_newest(const Google__Protobuf__Timestamp *epoch, struct blob_layer *layer,
                       struct err *e)
{
    if (!epoch || epoch->seconds == CLOCK_ZERO_SECONDS)
        return 0;
    if (epoch->nanos < 0 || epoch->nanos > 999999999)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "source date epoch has %d nanoseconds: invalid argument", epoch->nanos);
    layer->has_newest = true;
    layer->newest = (struct timespec){.tv_sec = epoch->seconds, .tv_nsec = epoch->nanos};
    return 0;
}

static int read_request(struct grpc_call *call, const Pb__Diff__DiffRequest *req, struct compare *c,
                        struct err *e)
{
    int r;

    c->place.ctx = grpc_call_userdata(call);
    c->place.call = call;
    c->place.lease = service_lease(call);
    if ((r = service_namespace(call, &c->place.ns, e)) < 0 ||
        (r = choose_format(req->media_type, &c->layer, e)) < 0 ||
        (r = read_newest(req->source_date_epoch, &c->layer, e)) < 0 ||
        (r = read_mounts(req->left, req->n_left, &c->lists[LEFT], e)) < 0 ||
        (r = read_mounts(req->right, req->n_right, &c->lists[RIGHT], e)) < 0)
        return r;
    if (pb_strmap_get((void *const *)req->labels, req->n_labels, &c->labels) < 0)
        return err_oom(e);
    c->layer.labels = &c->labels;
    if (str_empty(req->ref))
        make_up_ref(c->ref);
    c->place.ref = str_empty(req->ref) ? c->ref : req->ref;
    return 0;
}

/* In a mount namespace of its own. */
static int run_mounted(void *userdata, const int *fds, struct err *e)
{
    struct compare *c = userdata;

    c->layer.left_fd = fds[LEFT];
    c->layer.right_fd = fds[RIGHT];
    return blob_store_layer(&c->place, &c->layer, &c->result, e);
}

static int compare(struct grpc_call *call, const Pb__Diff__DiffRequest *req,
                   Pb__Diff__DiffResponse *reply, struct err *e)
{
    _cleanup_(compare_done) struct compare c = {};
    Pb__Types__Descriptor *d;
    int r;

    r = read_request(call, req, &c, e);
    if (r >= 0)
        r = temp_mount_run(c.place.ctx->root, c.lists, ARRAY_SIZE(c.lists), run_mounted, &c, e);
    if (r < 0)
        return r;
    d = service_message_new(&pb__types__descriptor__descriptor);
    if (!d)
        return err_oom(e);
    reply->diff = d;
    d->size = c.result.size;
    if (!service_set_string(&d->media_type, c.result.media_type) ||
        !service_set_string(&d->digest, c.result.digest))
        return err_oom(e);
    return 0;
}

void diff_compare(struct grpc_call *call, const ProtobufCMessage *request)
{
    Pb__Diff__DiffResponse *reply = service_message_new(&pb__diff__diff_response__descriptor);
    struct err e = ERR_INIT;
    int r = reply ? compare(call, (const void *)request, reply, &e) : err_oom(&e);

    service_answer(call, r, (ProtobufCMessage *)reply, &e);
}

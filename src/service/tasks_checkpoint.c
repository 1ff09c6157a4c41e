/* SPDX-License-Identifier: Apache-2.0 */
#include "service/tasks_checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "google/protobuf/empty.pb-c.h"
#include "linux.runc.pb-c.h"
#include "runc.v1.pb-c.h"
#include "runtime/tasks.h"
#include "service/tasks_forward.h"
#include "store/containers.h"
#include "wire/pb.h"

#define PLACE "tmpcheckpoints"
#define NAME_MAX_BYTES 40
/* Made by us below it, so that a runtime cannot make anew what we have removed. */
#define IMAGES_NAME "images"
/* The shim gives the OCI runtime ten minutes. */
#define SHIM_TIMEOUT_MS 660000

/* A Checkpoint under way: begun and ended on the pool, in between a call of the shim. */
struct checkpoint {
    struct service_context *ctx;
    struct grpc_call *call;
    const Pb__Tasks__CheckpointTaskRequest *request;
    const char *ns;
    struct task *task;
    struct container container;
    char name[NAME_MAX_BYTES];      /* of our directory */
    char *dir;                      /* NULL: the images go where the client says */
    char *path;                     /* of the images */
    Google__Protobuf__Any *options; /* NULL: as the request has them */
    Pb__Task__CheckpointTaskRequest shim;
    struct event_post post;
    struct workq_job job;
    struct err error; /* of the shim */
};

static void checkpoint_free(struct checkpoint *c)
{
    int r = c->dir ? fs_rm_rf(AT_FDCWD, c->dir) : 0;

    if (r < 0)
        log_warn("remove %s: %s", c->dir, err_strerror(r));
    container_done(&c->container);
    task_unref(c->task);
    grpc_call_unref(c->call);
    pb_free(c->options ? &c->options->base : NULL);
    free(c->dir);
    free(c->path);
    free(c);
}

/* The directory of images in the options of either runtime; "" leaves it to us. Options of another
 * kind are left to the shim they are for. */
static int read_image_path(const Google__Protobuf__Any *options, char **ret, struct err *e)
{
    ProtobufCMessage *m = NULL;
    const char *path = "";
    int r = 0;

    if (!options || str_empty(options->type_url))
        return 0;
    if (pb_any_is(options, &pb__runc__checkpoint_options__descriptor)) {
        r = pb_unpack(&pb__runc__checkpoint_options__descriptor, options->value.data,
                      options->value.len, &m, e);
        path = m ? ((const Pb__Runc__CheckpointOptions *)m)->image_path : "";
    } else if (pb_any_is(options, &pb__linuxrunc__checkpoint_options__descriptor)) {
        r = pb_unpack(&pb__linuxrunc__checkpoint_options__descriptor, options->value.data,
                      options->value.len, &m, e);
        path = m ? ((const Pb__Linuxrunc__CheckpointOptions *)m)->image_path : "";
    }
    if (r >= 0 && !str_empty(path)) {
        *ret = strdup(path);
        r = *ret ? 0 : err_oom(e);
    }
    pb_free(m);
    return r < 0 ? err_wrap(e, "decode checkpoint options") : 0;
}

/* ctr has one kind of options for both runtimes: for v1 they are said in its own words. */
static int translate_options(struct checkpoint *c, struct err *e)
{
    const Google__Protobuf__Any *from = c->request->options;
    Pb__Linuxrunc__CheckpointOptions to = PB__LINUXRUNC__CHECKPOINT_OPTIONS__INIT;
    ProtobufCMessage *m = NULL;

    if (!c->task->is_linux || !from || !pb_any_is(from, &pb__runc__checkpoint_options__descriptor))
        return 0;
    int r = pb_unpack(&pb__runc__checkpoint_options__descriptor, from->value.data, from->value.len,
                      &m, e);
    if (r < 0)
        return r;
    const Pb__Runc__CheckpointOptions *o = (const Pb__Runc__CheckpointOptions *)m;
    to.exit = o->exit;
    to.open_tcp = o->open_tcp;
    to.external_unix_sockets = o->external_unix_sockets;
    to.terminal = o->terminal;
    to.file_locks = o->file_locks;
    to.n_empty_namespaces = o->n_empty_namespaces;
    to.empty_namespaces = o->empty_namespaces;
    to.cgroups_mode = o->cgroups_mode;
    to.work_path = o->work_path;
    to.image_path = o->image_path;
    c->options = pb_any_pack(&to.base);
    pb_free(m);
    return c->options ? 0 : err_oom(e);
}

static int make_directory(struct checkpoint *c, struct err *e)
{
    _free_ char *parent = fs_join(c->ctx->root, PLACE);
    uint8_t bytes[16] = {0};
    char hex[2 * sizeof(bytes) + 1];
    _close_ int parent_fd = -EBADF, fd = -EBADF;

    (void)!getrandom(bytes, sizeof(bytes), 0);
    str_hex(bytes, sizeof(bytes), hex);
    snprintf(c->name, sizeof(c->name), "%s", hex);
    c->dir = parent ? fs_join(parent, c->name) : NULL;
    c->path = c->dir ? fs_join(c->dir, IMAGES_NAME) : NULL;
    if (!c->path)
        return err_oom(e);
    int r = fs_open_private_dir(parent, 0700, &parent_fd);
    if (r >= 0)
        r = fs_open_private_dir(c->dir, 0700, &fd);
    if (r >= 0 && mkdirat(fd, IMAGES_NAME, 0700) < 0)
        r = -errno;
    return r < 0 ? err_errno(e, r, "make directory %s for a checkpoint", c->path) : 0;
}

static int store(struct checkpoint *c, struct descriptor ret[2], struct err *e)
{
    char ref[sizeof("checkpoint--spec") + NAME_MAX_BYTES];
    Google__Protobuf__Any spec = GOOGLE__PROTOBUF__ANY__INIT;
    _free_ uint8_t *bytes = NULL;
    size_t n = 0;
    const struct blob_place place = {
        .ctx = c->ctx, .call = c->call, .ns = c->ns, .lease = service_lease(c->call), .ref = ref};
    _close_ int fd = neg_errno(open(c->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    if (fd < 0)
        return err_errno(e, fd, "open %s", c->path);
    snprintf(ref, sizeof(ref), "checkpoint-%s", c->name);
    int r = blob_store_directory(&place, fd, MEDIA_TYPE_CHECKPOINT, NULL, &ret[0], e);
    if (r < 0)
        return err_wrap(e, "store the checkpoint of task %s", c->request->container_id);
    spec.type_url = c->container.spec.type_url;
    spec.value =
        (ProtobufCBinaryData){.len = c->container.spec.value_len, .data = c->container.spec.value};
    if (!spec.type_url)
        spec.type_url = (char *)protobuf_c_empty_string;
    if (pb_pack(&spec.base, &bytes, &n) < 0)
        return err_oom(e);
    snprintf(ref, sizeof(ref), "checkpoint-%s-spec", c->name);
    return blob_store_bytes(&place, bytes, n, MEDIA_TYPE_CHECKPOINT_SPEC, NULL, &ret[1], e);
}

static int add_descriptor(Pb__Tasks__CheckpointTaskResponse *reply, const struct descriptor *from)
{
    Pb__Types__Descriptor *d = service_message_new(&pb__types__descriptor__descriptor);

    if (!d)
        return -ENOMEM;
    reply->descriptors[reply->n_descriptors++] = d;
    d->size = from->size;
    if (!service_set_string(&d->media_type, from->media_type) ||
        !service_set_string(&d->digest, from->digest))
        return -ENOMEM;
    return 0;
}

static int fill_reply(struct checkpoint *c, Pb__Tasks__CheckpointTaskResponse *reply, struct err *e)
{
    struct descriptor stored[2] = {};

    int r = store(c, stored, e);
    if (r >= 0)
        reply->descriptors = calloc(ARRAY_SIZE(stored), sizeof(*reply->descriptors));
    if (r >= 0 && (!reply->descriptors || add_descriptor(reply, &stored[0]) < 0 ||
                   add_descriptor(reply, &stored[1]) < 0))
        r = err_oom(e);
    descriptor_done(&stored[0]);
    descriptor_done(&stored[1]);
    return r;
}

/* [pool] The shim has answered. */
static void checkpoint_end(struct workq_job *job)
{
    struct checkpoint *c = container_of(job, struct checkpoint, job);
    struct grpc_call *call = grpc_call_ref(c->call);
    Pb__Tasks__CheckpointTaskResponse *reply = NULL;
    struct err e = c->error;
    int r = e.code == ERR_OK ? 0 : ERR_RETURN;

    if (r == 0) {
        reply = service_message_new(&pb__tasks__checkpoint_task_response__descriptor);
        r = !reply ? err_oom(&e) : c->dir ? fill_reply(c, reply, &e) : 0;
    }
    checkpoint_free(c); /* first: who has the answer finds nothing left */
    service_answer(call, r, (ProtobufCMessage *)reply, &e);
    grpc_call_unref(call);
}

static void checkpoint_replied(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct checkpoint *c = userdata;
    struct err ending = ERR_INIT;

    if (reply)
        protobuf_c_message_free_unpacked(reply, NULL);
    if (e)
        c->error = *e;
    if (workq_submit(c->ctx->pool, &c->job, checkpoint_end) < 0) {
        err_set(&ending, ERR_UNAVAILABLE, "the daemon is shutting down");
        grpc_call_finish(c->call, &ending);
        checkpoint_free(c);
    }
}

/* [loop] */
static void checkpoint_call(struct event_post *post)
{
    struct checkpoint *c = container_of(post, struct checkpoint, post);

    task_call(c->task, "Checkpoint", &c->shim.base, &google__protobuf__empty__descriptor,
              SHIM_TIMEOUT_MS, checkpoint_replied, c);
}

static int checkpoint_begin(struct checkpoint *c, struct err *e)
{
    const char *id = c->request->container_id;

    int r = service_namespace(c->call, &c->ns, e);
    if (r >= 0)
        r = container_get(c->ctx->db, c->ns, id, &c->container, e);
    if (r < 0)
        return r;
    c->task = tasks_find(c->ctx->tasks, c->ns, id);
    if (!c->task)
        return task_missing(c->ctx, c->ns, id, e);
    r = read_image_path(c->request->options, &c->path, e);
    if (r >= 0)
        r = translate_options(c, e);
    if (r >= 0 && !c->path)
        r = make_directory(c, e);
    if (r < 0)
        return r;
    pb__task__checkpoint_task_request__init(&c->shim);
    c->shim.id = c->task->id;
    c->shim.path = c->path;
    c->shim.options = c->options ? c->options : c->request->options;
    return 0;
}

void tasks_checkpoint(struct grpc_call *call, const ProtobufCMessage *request)
{
    struct checkpoint *c = calloc(1, sizeof(*c));
    struct err e = ERR_INIT;

    if (!c) {
        err_oom(&e);
        grpc_call_finish(call, &e);
        return;
    }
    c->ctx = grpc_call_userdata(call);
    c->call = grpc_call_ref(call);
    c->request = (const Pb__Tasks__CheckpointTaskRequest *)request;
    if (checkpoint_begin(c, &e) < 0) {
        grpc_call_finish(call, &e);
        checkpoint_free(c);
        return;
    }
    event_loop_post(c->ctx->loop, &c->post, checkpoint_call);
}

void tasks_checkpoint_remove_old(const char *root)
{
    _free_ char *path = fs_join(root, PLACE);
    int r = path ? fs_rm_rf(AT_FDCWD, path) : -ENOMEM;

    if (r < 0)
        log_warn("remove old checkpoints below %s: %s", root, err_strerror(r));
}

/* Restore. */

static int read_restore_path(const Google__Protobuf__Any *options, char **ret, struct err *e)
{
    ProtobufCMessage *m = NULL;
    const char *path = "";
    int r = 0;

    if (!options || str_empty(options->type_url))
        return 0;
    if (pb_any_is(options, &pb__runc__options__descriptor)) {
        r = pb_unpack(&pb__runc__options__descriptor, options->value.data, options->value.len, &m,
                      e);
        path = m ? ((const Pb__Runc__Options *)m)->criu_image_path : "";
    } else if (pb_any_is(options, &pb__linuxrunc__create_options__descriptor)) {
        r = pb_unpack(&pb__linuxrunc__create_options__descriptor, options->value.data,
                      options->value.len, &m, e);
        path = m ? ((const Pb__Linuxrunc__CreateOptions *)m)->criu_image_path : "";
    }
    if (r >= 0 && !str_empty(path)) {
        *ret = strdup(path);
        r = *ret ? 0 : err_oom(e);
    }
    pb_free(m);
    return r < 0 ? err_wrap(e, "decode task options") : 0;
}

/* task_create.fill_images */
static int unpack(void *userdata, int dir_fd, struct err *e)
{
    const struct restore *r = userdata;

    return blob_unpack(&r->place, r->digest, dir_fd, e);
}

int restore_init(struct restore *ret, struct grpc_call *call, const char *ns,
                 const Pb__Tasks__CreateTaskRequest *request, struct task_create *create,
                 struct err *e)
{
    const Pb__Types__Descriptor *d = request->checkpoint;

    *ret = (struct restore){.place = {.ctx = grpc_call_userdata(call), .call = call, .ns = ns}};
    int r = read_restore_path(request->options, &ret->image_path, e);
    if (r < 0)
        return r;
    if (ret->image_path) {
        create->request->checkpoint = ret->image_path;
        return 0;
    }
    if (!d || (str_empty(d->digest) && str_empty(d->media_type)))
        return 0;
    if (!str_eq(d->media_type, MEDIA_TYPE_CHECKPOINT))
        return err_set(e, ERR_UNKNOWN, "unsupported checkpoint type \"%.200s\"", d->media_type);
    ret->digest = d->digest;
    create->fill_images = unpack;
    create->fill_userdata = ret;
    return 0;
}

void restore_done(struct restore *r)
{
    free(r->image_path);
    r->image_path = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint create, ls, rm, restore: docker's verbs, and `docker start --checkpoint` as one more.
 */
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/str.h"
#include "cli/checkpoint.h"
#include "cli/command.h"
#include "cli/container.h"
#include "cli/container_io.h"
#include "cli/json_out.h"
#include "cli/lease.h"
#include "cli/logs.h"
#include "cli/table.h"
#include "linux.runc.pb-c.h"
#include "oci/spec.h"
#include "runc.v1.pb-c.h"
#include "services.snapshots.v1.pb-c.h"

#define RUNTIME_V1 "io.containerd.runtime.v1.linux"
/* Longer than a dump takes; it is deleted at once when all goes well. */
#define LEASE_S 86400
#define END_TIMEOUT_MS 30000

struct checkpoint_options {
    bool leave_running;
    const char *dir;
};
#define FLAG_DIR                                                                           \
    {                                                                                      \
        "checkpoint-dir", 0, FLAG_STRING, offsetof(struct checkpoint_options, dir), "DIR", \
            "directory of checkpoints, in place of the daemon"                             \
    }
static const struct flag create_flags[] = {
    {"leave-running", 0, FLAG_BOOL, offsetof(struct checkpoint_options, leave_running), NULL,
     "the container goes on; otherwise it ends"},
    FLAG_DIR,
};
static const struct flag_table create_table = FLAGS(create_flags);
static const struct flag dir_flags[] = {FLAG_DIR};
static const struct flag_table dir_table = FLAGS(dir_flags);

/* create */

/* In the words of the container's runtime. */
static Google__Protobuf__Any *checkpoint_any(const char *runtime, bool exit, const char *path)
{
    Pb__Linuxrunc__CheckpointOptions v1 = PB__LINUXRUNC__CHECKPOINT_OPTIONS__INIT;
    Pb__Runc__CheckpointOptions v2 = PB__RUNC__CHECKPOINT_OPTIONS__INIT;

    v1.exit = v2.exit = exit;
    v1.image_path = v2.image_path = (char *)str_or_empty(path);
    return pb_any_pack(str_eq(runtime, RUNTIME_V1) ? &v1.base : &v2.base);
}

/* path NULL: the daemon stores it, and what it has stored is kept under the name. */
static int take(struct cli *cli, const Pb__Containers__Container *c, const char *name, bool exit,
                const char *path, struct err *e)
{
    Pb__Tasks__CheckpointTaskRequest request = PB__TASKS__CHECKPOINT_TASK_REQUEST__INIT;
    _reply_ Pb__Tasks__CheckpointTaskResponse *reply = NULL;
    _reply_ Google__Protobuf__Any *options =
        checkpoint_any(c->runtime ? c->runtime->name : "", exit, path);
    struct descriptor parts[8] = {};
    size_t n = 0;

    if (!options)
        return err_oom(e);
    request.container_id = c->id;
    request.options = options;
    int r = RPC(cli, "tasks.v1.Tasks/Checkpoint", &request, pb__tasks__checkpoint_task_response,
                &reply, e);
    if (r < 0 || path)
        return r;
    for (; n < reply->n_descriptors && n < ARRAY_SIZE(parts); n++)
        parts[n] = (struct descriptor){.media_type = reply->descriptors[n]->media_type,
                                       .digest = reply->descriptors[n]->digest,
                                       .size = reply->descriptors[n]->size};
    return checkpoint_keep(cli, c->id, name, parts, n, e);
}

static int take_leased(struct cli *cli, const Pb__Containers__Container *c, const char *name,
                       bool exit, struct err *e)
{
    struct lease lease = LEASE_INIT;
    int r = lease_begin(cli, &lease, LEASE_S, e);

    if (r == 0)
        r = lease_apply(cli, &lease, e);
    if (r == 0)
        r = take(cli, c, name, exit, NULL, e);
    lease_suspend(cli);
    lease_end(cli, &lease);
    return r;
}

/* What `stop` leaves: no task, and how it ended on record. */
static int ended(struct cli *cli, const Pb__Tasks__GetResponse *task, const char *id, struct err *e)
{
    int r = container_wait(cli, id, END_TIMEOUT_MS, NULL, e);

    if (r < 0 && e->code != ERR_NOT_FOUND)
        return r;
    container_io_remove_left(task->process->stdout);
    return container_delete_task(cli, id, true, e);
}

static int check_free(struct cli *cli, const char *id, const char *name, struct err *e)
{
    _free_ char *digest = NULL;

    int r = identifier_validate(name, e);
    if (r < 0)
        return err_wrap(e, "name of the checkpoint");
    r = checkpoint_find(cli, id, name, &digest, e);
    if (r == 0)
        return err_set(e, ERR_ALREADY_EXISTS, "container %s has a checkpoint %s already", id, name);
    return e->code == ERR_NOT_FOUND ? 0 : r;
}

static int make_place(const char *dir, const char *path, struct err *e)
{
    if (fs_exists(AT_FDCWD, path))
        return err_set(e, ERR_ALREADY_EXISTS, "%s is there already", path);
    int r = fs_mkdir_p(AT_FDCWD, dir, 0700);
    return r < 0 ? err_errno(e, r, "make directory %s", dir) : 0;
}

static int cmd_create(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct checkpoint_options *o = options;
    const char *id = argv[0], *name = argv[1];
    _reply_ Pb__Containers__GetContainerResponse *c = NULL;
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    _free_ char *path = NULL;

    int r = container_get(cli, id, &c, e);
    if (r == 0)
        r = container_running(cli, id, &task, e);
    if (r == 0)
        r = o->dir ? checkpoint_path(o->dir, name, &path, e) : check_free(cli, id, name, e);
    if (r == 0 && path)
        r = make_place(o->dir, path, e);
    if (r == 0)
        r = cli_catch_signals(cli, e);
    if (r < 0)
        return r;
    /* Who interrupts now would lose a container that has ended for this. */
    cli->finishing = true;
    r = path ? take(cli, c->container, name, !o->leave_running, path, e)
             : take_leased(cli, c->container, name, !o->leave_running, e);
    if (r == 0 && !o->leave_running)
        r = ended(cli, task, id, e);
    if (r < 0)
        return err_wrap(e, "checkpoint container %s", id);
    printf("%s\n", name);
    return 0;
}

/* ls */

static int cmd_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"CONTAINER", "CHECKPOINT", "CREATED"};
    const struct checkpoint_options *o = options;
    _cleanup_(checkpoint_list_done) struct checkpoint_list list = {};
    _cleanup_(table_done) struct table t;
    const char *id = argc > 0 ? argv[0] : NULL;
    int r = id ? identifier_validate(id, e) : 0;

    table_init(&t, ARRAY_SIZE(headings), headings);
    if (r == 0)
        r = o->dir ? checkpoint_list_dir(o->dir, &list, e) : checkpoint_list(cli, id, &list, e);
    if (r < 0)
        return r;
    json_t *array = cli->json ? json_array() : NULL;
    for (size_t i = 0; i < list.n; i++) {
        const struct checkpoint *c = &list.checkpoints[i];
        char age[TABLE_AGE_MAX], at[CLOCK_RFC3339_MAX];

        if (array) {
            json_t *object = json_object();
            clock_rfc3339(c->created_at, at);
            json_put(object, "container", c->container ? json_text(c->container) : json_null());
            json_put(object, "name", json_text(c->name));
            json_put(object, "digest", c->digest ? json_text(c->digest) : json_null());
            json_put(object, "createdAt", json_text(at));
            json_array_append_new(array, object);
            continue;
        }
        table_format_age(clock_realtime().tv_sec - c->created_at.tv_sec, age);
        table_cell(&t, c->container);
        table_cell(&t, c->name);
        table_cellf(&t, "%s ago", age);
    }
    if (array)
        return json_print(array, e);
    return table_print(&t, stdout) < 0 ? err_oom(e) : 0;
}

/* rm */

static int remove_images(const char *dir, const char *name, struct err *e)
{
    _free_ char *path = NULL;

    int r = checkpoint_path(dir, name, &path, e);
    if (r < 0)
        return r;
    /* Nothing else is deleted, whatever was typed. */
    if (!checkpoint_is_there(path))
        return err_set(e, ERR_NOT_FOUND, "%s is no checkpoint", path);
    r = fs_rm_rf(AT_FDCWD, path);
    return r < 0 ? err_errno(e, r, "remove %s", path) : 0;
}

static int cmd_rm(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct checkpoint_options *o = options;
    _free_ char *digest = NULL;
    int r;

    if (o->dir) {
        r = remove_images(o->dir, argv[1], e);
    } else {
        r = checkpoint_find(cli, argv[0], argv[1], &digest, e);
        if (r == 0)
            r = checkpoint_remove(cli, digest, e);
    }
    if (r == 0)
        printf("%s\n", argv[1]);
    return r;
}

/* restore */

struct restore {
    struct cli *cli;
    const Pb__Containers__Container *container;
    Pb__Snapshots__MountsResponse *rootfs;
    struct container_io io;
    char *log_uri; /* NULL: streams by fifos */
    char *path;    /* images in a directory, else: */
    struct descriptor stored;
    bool terminal;
};

static void restore_done(struct restore *r)
{
    pb_free(r->rootfs ? &r->rootfs->base : NULL);
    container_io_done(&r->io);
    descriptor_done(&r->stored);
    free(r->log_uri);
    free(r->path);
}

static int find_images(struct restore *r, const char *dir, const char *name, struct err *e)
{
    const char *id = r->container->id;
    _free_ char *digest = NULL;

    if (dir) {
        int code = checkpoint_path(dir, name, &r->path, e);
        if (code == 0 && !checkpoint_is_there(r->path))
            code = err_set(e, ERR_NOT_FOUND, "%s is no checkpoint", r->path);
        return code;
    }
    int code = checkpoint_find(r->cli, id, name, &digest, e);
    return code < 0 ? code : checkpoint_images(r->cli, digest, &r->stored, e);
}

/* A task that has ended makes room. */
static int make_room(struct cli *cli, const char *id, struct err *e)
{
    _reply_ Pb__Tasks__GetResponse *task = NULL;

    int r = container_task(cli, id, &task, e);
    if (r <= 0)
        return r;
    if (task->process->status != PB__V1TYPES__STATUS__STOPPED)
        return err_set(e, ERR_FAILED_PRECONDITION, "container %s is running; stop it first", id);
    container_io_remove_left(task->process->stdout);
    return container_delete_task(cli, id, false, e);
}

static int find_mounts(struct restore *r, struct err *e)
{
    Pb__Snapshots__MountsRequest request = PB__SNAPSHOTS__MOUNTS_REQUEST__INIT;

    if (str_empty(r->container->snapshot_key))
        return 0;
    request.snapshotter = r->container->snapshotter;
    request.key = r->container->snapshot_key;
    return RPC(r->cli, "snapshots.v1.Snapshots/Mounts", &request, pb__snapshots__mounts_response,
               &r->rootfs, e);
}

/* As of a container started with -d: its log, or with -t fifos for who attaches. */
static int make_streams(struct restore *r, struct err *e)
{
    const Google__Protobuf__Any *spec = r->container->spec;
    _cleanup_(spec_summary_done) struct spec_summary summary = {};
    const char *log = container_label(r->container, LABEL_LOG_PATH);

    int code = spec ? spec_summarise(spec->value.data, spec->value.len, &summary, e) : 0;
    if (code < 0)
        return code;
    r->terminal = summary.terminal;
    if (r->terminal)
        return container_io_make(&r->io, r->container->id, true, true, true, e);
    if (log) {
        r->log_uri = str_printf("file://%s", log);
        return r->log_uri ? 0 : err_oom(e);
    }
    return logs_begin(r->cli, r->container->id, &r->log_uri, e);
}

/* The container's own options, and where the images are. */
static int task_options(const struct restore *r, Google__Protobuf__Any **ret, struct err *e)
{
    const Pb__Containers__Container__Runtime *runtime = r->container->runtime;
    const Google__Protobuf__Any *own = runtime ? runtime->options : NULL;
    Pb__Linuxrunc__CreateOptions v1 = PB__LINUXRUNC__CREATE_OPTIONS__INIT;
    Pb__Runc__Options v2 = PB__RUNC__OPTIONS__INIT;
    ProtobufCMessage *m = NULL;

    if (!r->path)
        return 0;
    if (runtime && str_eq(runtime->name, RUNTIME_V1)) {
        v1.criu_image_path = r->path;
        *ret = pb_any_pack(&v1.base);
        return *ret ? 0 : err_oom(e);
    }
    if (own && pb_any_is(own, &pb__runc__options__descriptor)) {
        int code =
            pb_unpack(&pb__runc__options__descriptor, own->value.data, own->value.len, &m, e);
        if (code < 0)
            return code;
        v2 = *(const Pb__Runc__Options *)m;
    }
    v2.criu_image_path = r->path;
    *ret = pb_any_pack(&v2.base);
    pb_free(m);
    return *ret ? 0 : err_oom(e);
}

static int create_task(const struct restore *r, struct err *e)
{
    Pb__Tasks__CreateTaskRequest request = PB__TASKS__CREATE_TASK_REQUEST__INIT;
    Pb__Types__Descriptor checkpoint = PB__TYPES__DESCRIPTOR__INIT;
    _reply_ Google__Protobuf__Any *options = NULL;

    int code = task_options(r, &options, e);
    if (code < 0)
        return code;
    request.container_id = r->container->id;
    if (r->rootfs) {
        request.rootfs = r->rootfs->mounts;
        request.n_rootfs = r->rootfs->n_mounts;
    }
    request.terminal = r->terminal;
    request.stdin = r->io.paths[0];
    request.stdout = r->log_uri ? r->log_uri : r->io.paths[1];
    request.stderr = r->log_uri ? r->log_uri : r->io.paths[2];
    request.options = options;
    if (!r->path) {
        checkpoint.media_type = r->stored.media_type;
        checkpoint.digest = r->stored.digest;
        checkpoint.size = r->stored.size;
        request.checkpoint = &checkpoint;
    }
    return RPC(r->cli, "tasks.v1.Tasks/Create", &request, pb__tasks__create_task_response, NULL, e);
}

static int start_task(struct restore *r, struct err *e)
{
    Pb__Tasks__StartRequest request = PB__TASKS__START_REQUEST__INIT;
    struct err ignored = ERR_INIT;

    request.container_id = r->container->id;
    int code = RPC(r->cli, "tasks.v1.Tasks/Start", &request, pb__tasks__start_response, NULL, e);
    if (code < 0)
        container_delete_task(r->cli, r->container->id, false, &ignored);
    else
        r->io.keep = true;
    return code;
}

static int cmd_restore(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct checkpoint_options *o = options;
    _reply_ Pb__Containers__GetContainerResponse *c = NULL;
    _cleanup_(restore_done) struct restore r = {.cli = cli};

    container_io_init(&r.io);
    int code = container_get(cli, argv[0], &c, e);
    if (code < 0)
        return code;
    r.container = c->container;
    code = find_images(&r, o->dir, argv[1], e);
    if (code == 0)
        code = cli_catch_signals(cli, e);
    if (code == 0)
        code = make_room(cli, argv[0], e);
    if (code == 0)
        code = find_mounts(&r, e);
    if (code == 0)
        code = make_streams(&r, e);
    if (code < 0)
        return code;
    cli->finishing = true;
    code = create_task(&r, e);
    if (code == 0)
        code = start_task(&r, e);
    if (code < 0)
        return err_wrap(e, "restore container %s", argv[0]);
    printf("%s\n", argv[0]);
    return 0;
}

const struct command commands_checkpoint[] = {
    {
        .name = "checkpoint create",
        .usage = "[--leave-running] [--checkpoint-dir DIR] CONTAINER NAME",
        .summary = "write the state of a running container down, and end it",
        .detail = "The processes of the container are saved by CRIU, which the OCI runtime calls: "
                  "both must be\n"
                  "installed, and Debian's crun is built without. The daemon keeps the checkpoint "
                  "until it is\n"
                  "removed; with --checkpoint-dir its files are written to DIR/NAME and it knows "
                  "nothing of it.",
        .flags = &create_table,
        .options_size = sizeof(struct checkpoint_options),
        .min_args = 2,
        .max_args = 2,
        .run = cmd_create,
    },
    {
        .name = "checkpoint ls",
        .usage = "[--checkpoint-dir DIR] [CONTAINER]",
        .summary = "list checkpoints",
        .flags = &dir_table,
        .options_size = sizeof(struct checkpoint_options),
        .max_args = 1,
        .run = cmd_ls,
    },
    {
        .name = "checkpoint restore",
        .usage = "[--checkpoint-dir DIR] CONTAINER NAME",
        .summary = "start a container that has ended where a checkpoint left it",
        .detail = "It runs in the background with the filesystem it has now. Its output goes to "
                  "its log\n"
                  "(\"wherry logs\"); to one with a terminal \"wherry attach\" connects.",
        .flags = &dir_table,
        .options_size = sizeof(struct checkpoint_options),
        .min_args = 2,
        .max_args = 2,
        .run = cmd_restore,
    },
    {
        .name = "checkpoint rm",
        .usage = "[--checkpoint-dir DIR] CONTAINER NAME",
        .summary = "remove a checkpoint",
        .flags = &dir_table,
        .options_size = sizeof(struct checkpoint_options),
        .min_args = 2,
        .max_args = 2,
        .run = cmd_rm,
    },
    {},
};

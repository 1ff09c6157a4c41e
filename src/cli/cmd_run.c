/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `wherry run`. The calls, those in one line under way at once:
 *
 *     Leases.Create, Images.Get
 *     Content.Read (manifest; an index costs one more)
 *     Content.Read (configuration)
 *     Snapshots.Prepare                       the image is unpacked first if this finds no parent
 *     Containers.Create
 *     Tasks.Create
 *     ResizePty, Wait, Start                  with -d: Start alone, and it ends here
 *     Tasks.Delete
 *     Snapshots.Remove, Containers.Delete, Leases.Delete
 *
 * The lease is there because a snapshot is made before the container that will hold it (the
 * container's specification depends on the image's /etc/passwd, which is read in the snapshot), and
 * the garbage collector takes a snapshot that nothing holds. Its creation hides behind Images.Get
 * and its deletion behind the others at the end; should we be killed, it expires.
 */
#include <stdio.h>

#include "base/fs.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/container.h"
#include "cli/lease.h"
#include "cli/logs.h"
#include "cli/process.h"
#include "cli/run_options.h"
#include "runc.v1.pb-c.h"
#include "services.snapshots.v1.pb-c.h"

#define LEASE_SECONDS 3600
#define DEFAULT_RUNTIME "io.containerd.runc.v2"

struct run {
    struct cli *cli;
    const struct run_options *options;
    const char *snapshotter;
    struct run_plan plan;
    struct lease lease;
    struct image image;
    Pb__Snapshots__PrepareSnapshotResponse *rootfs;
    struct process process;
    char *log_path; /* -d: where the output goes; NULL else */
    bool has_snapshot, has_container, has_task;
};

static int find_image(struct run *run, const char *name, struct err *e)
{
    _reply_ Pb__Images__GetImageResponse *reply = NULL;
    int r = lease_begin(run->cli, &run->lease, LEASE_SECONDS, e);

    if (r == 0)
        r = image_get(run->cli, name, &reply, e);
    if (r == 0)
        r = image_load(run->cli, reply->image, &run->image, e);
    if (r == 0)
        r = lease_apply(run->cli, &run->lease, e);
    return r;
}

/* Here and below: calls that make something are waited for in spite of ctrl-c, so that we know what
 * is to be undone. */
static int prepare_once(struct run *run, struct err *e)
{
    Pb__Snapshots__PrepareSnapshotRequest request = PB__SNAPSHOTS__PREPARE_SNAPSHOT_REQUEST__INIT;
    int r;

    request.snapshotter = (char *)run->snapshotter;
    request.key = run->plan.id;
    request.parent = run->image.chain_id;
    run->cli->finishing = true;
    r = RPC(run->cli, "snapshots.v1.Snapshots/Prepare", &request,
            pb__snapshots__prepare_snapshot_response, &run->rootfs, e);
    run->cli->finishing = false;
    return r;
}

static int prepare(struct run *run, struct err *e)
{
    int r = prepare_once(run, e);

    if (r < 0 && e->code == ERR_NOT_FOUND && *run->image.chain_id) {
        err_clear(e);
        r = image_unpack(run->cli, &run->image, run->snapshotter, e);
        if (r == 0)
            r = prepare_once(run, e);
    }
    if (r < 0 && e->code == ERR_ALREADY_EXISTS)
        return err_set(e, ERR_ALREADY_EXISTS,
                       "there is a container %s already; \"wherry rm %s\" removes it, or choose "
                       "another --name",
                       run->plan.id, run->plan.id);
    run->has_snapshot = r == 0;
    return r < 0 ? err_wrap(e, "make the container's filesystem") : 0;
}

/* The user is looked up in the layers as they lie on disk; nothing is mounted for it. */
static int resolve_user(struct run *run, struct user *ret, struct err *e)
{
    _cleanup_(mount_list_done) struct mount_list mounts = {};
    _cleanup_(layers_done) struct layers layers = {};
    const char *user = run->options->user ? run->options->user : run->image.config.user;
    int r = 0;

    for (size_t i = 0; i < run->rootfs->n_mounts && r == 0; i++) {
        const Pb__Types__Mount *m = run->rootfs->mounts[i];
        char **options = calloc(m->n_options + 1, sizeof(*options));

        if (!options)
            return err_oom(e);
        for (size_t n = 0; n < m->n_options; n++)
            options[n] = m->options[n];
        r = mount_list_add(&mounts, m->type, m->source, NULL, options);
        free(options);
    }
    if (r == 0)
        r = layers_open(&mounts, &layers);
    user = str_or_empty(user);
    if (r < 0 && user[strspn(user, "0123456789:")])
        return err_errno(
            e, r, "look up user \"%s\" in the image's /etc/passwd (a number needs no look-up)",
            user);
    return user_resolve(user, r < 0 ? NULL : &layers, ret, e);
}

static int set_log_path(struct run *run, struct err *e)
{
    run->log_path = logs_path(run->cli, run->plan.id);
    return run->log_path ? 0 : err_oom(e);
}

static int container_labels(struct run *run, struct strmap *labels, struct err *e)
{
    const char *stop = run->options->stop_signal;
    int r = strmap_copy(labels, &run->plan.labels), number;

    if (str_empty(stop))
        stop = run->image.config.stop_signal;
    else if (run_parse_signal(stop, &number, e) < 0)
        return err_wrap(e, "--stop-signal");
    if (r == 0)
        r = strmap_set(labels, LABEL_STOP_SIGNAL, str_empty(stop) ? "SIGTERM" : stop);
    if (r == 0 && run->log_path)
        r = strmap_set(labels, LABEL_LOG_PATH, run->log_path);
    return r < 0 ? err_oom(e) : 0;
}

/* "crun", "runc" and paths are OCI runtimes below the usual shim; other names are shims. */
static int set_runtime(const char *name, Pb__Containers__Container__Runtime *runtime,
                       Google__Protobuf__Any **ret_options, struct err *e)
{
    Pb__Runc__Options options = PB__RUNC__OPTIONS__INIT;

    runtime->name = (char *)DEFAULT_RUNTIME;
    if (str_empty(name))
        return 0;
    if (strchr(name, '.') && name[0] != '/') {
        runtime->name = (char *)name;
        return 0;
    }
    options.binary_name = (char *)name;
    *ret_options = pb_any_pack(&options.base);
    runtime->options = *ret_options;
    return *ret_options ? 0 : err_oom(e);
}

static int create_container(struct run *run, struct err *e)
{
    Pb__Containers__CreateContainerRequest request = PB__CONTAINERS__CREATE_CONTAINER_REQUEST__INIT;
    Pb__Containers__Container c = PB__CONTAINERS__CONTAINER__INIT;
    Pb__Containers__Container__Runtime runtime = PB__CONTAINERS__CONTAINER__RUNTIME__INIT;
    Google__Protobuf__Any spec = GOOGLE__PROTOBUF__ANY__INIT;
    _cleanup_(strmap_done) struct strmap labels = {};
    _cleanup_(user_done) struct user user = {};
    _reply_ Google__Protobuf__Any *options = NULL;
    _reply_ Pb__Containers__Container *labelled = NULL;
    _free_ char *json = NULL;
    int r = resolve_user(run, &user, e);

    if (r < 0)
        return r;
    run->plan.spec.user = &user;
    r = spec_format(&run->plan.spec, &json, e);
    run->plan.spec.user = NULL;
    if (r == 0)
        r = container_labels(run, &labels, e);
    if (r == 0)
        r = set_runtime(run->options->runtime, &runtime, &options, e);
    if (r < 0)
        return r;
    labelled = calloc(1, sizeof(*labelled));
    if (!labelled)
        return err_oom(e);
    pb__containers__container__init(labelled);
    if (pb_strmap_new(&labels, &pb__containers__container__labels_entry__descriptor,
                      (void ***)(void *)&labelled->labels, &labelled->n_labels) < 0)
        return err_oom(e);
    spec.type_url = (char *)SPEC_TYPE_URL;
    spec.value.data = (uint8_t *)json;
    spec.value.len = strlen(json);
    c.id = run->plan.id;
    c.image = run->image.name;
    c.labels = labelled->labels;
    c.n_labels = labelled->n_labels;
    c.runtime = &runtime;
    c.spec = &spec;
    c.snapshotter = (char *)run->snapshotter;
    c.snapshot_key = run->plan.id;
    request.container = &c;
    run->cli->finishing = true;
    r = RPC(run->cli, "containers.v1.Containers/Create", &request,
            pb__containers__create_container_response, NULL, e);
    run->cli->finishing = false;
    if (r < 0)
        return r;
    run->has_container = true;
    return 0;
}

static int make_streams(struct run *run, struct err *e)
{
    const struct run_options *o = run->options;
    struct process *p = &run->process;
    bool output = !o->detach || o->terminal;
    int r = 0;

    if (o->detach && !o->terminal)
        r = set_log_path(run, e);
    if (r == 0)
        r = container_io_make(&p->io, run->plan.id, o->interactive, output, o->terminal, e);
    p->interactive = o->interactive && !o->detach;
    return r;
}

static int create_task(struct run *run, struct err *e)
{
    Pb__Tasks__CreateTaskRequest request = PB__TASKS__CREATE_TASK_REQUEST__INIT;
    struct process *p = &run->process;
    _free_ char *uri = NULL;
    int r;

    request.container_id = run->plan.id;
    request.rootfs = run->rootfs->mounts;
    request.n_rootfs = run->rootfs->n_mounts;
    request.terminal = run->options->terminal;
    request.stdin = p->io.paths[0];
    request.stdout = p->io.paths[1];
    request.stderr = p->io.paths[2];
    if (run->log_path) {
        uri = str_printf("file://%s", run->log_path);
        if (!uri)
            return err_oom(e);
        request.stdout = uri;
        request.stderr = uri;
    }
    run->cli->finishing = true;
    r = RPC(run->cli, "tasks.v1.Tasks/Create", &request, pb__tasks__create_task_response, NULL, e);
    run->cli->finishing = false;
    run->has_task = r == 0;
    if (r == 0 && run->cli->interrupted)
        return err_set(e, ERR_CANCELED, "interrupted");
    return r;
}

static int start_detached(struct run *run, struct err *e)
{
    Pb__Tasks__StartRequest request = PB__TASKS__START_REQUEST__INIT;
    int r;

    request.container_id = run->plan.id;
    run->cli->finishing = true;
    r = RPC(run->cli, "tasks.v1.Tasks/Start", &request, pb__tasks__start_response, NULL, e);
    if (r < 0)
        return r;
    run->process.io.keep = true;
    printf("%s\n", run->plan.id);
    return 0;
}

/* Undoes what was done, whatever of it there is. */
static int clean_up(struct run *run, struct err *e)
{
    const char *id = run->plan.id;
    int r = 0;

    run->cli->finishing = true;
    lease_delete(run->cli, &run->lease);
    if (run->has_task)
        r = container_end_task(run->cli, id, true, e);
    if (r >= 0)
        r = container_remove_records(run->cli, run->has_container ? id : NULL, run->snapshotter,
                                     run->has_snapshot ? id : NULL, e);
    if (run->log_path && run->has_task)
        unlink(run->log_path);
    return r;
}

/* After the end of a foreground container. */
static int end(struct run *run, struct err *e)
{
    const struct run_options *o = run->options;
    int r;

    run->cli->finishing = true;
    if (run->process.detached)
        return 0;
    r = container_delete_task(run->cli, run->plan.id, !o->remove, e);
    if (r < 0)
        return r;
    run->has_task = false;
    return 0;
}

static int build(struct run *run, int argc, char **argv, struct err *e)
{
    int r = find_image(run, argv[0], e);

    if (r == 0)
        r = run_plan_use_image(&run->plan, run->options, &run->image.config, argc - 1, argv + 1, e);
    if (r == 0)
        r = make_streams(run, e);
    if (r == 0)
        r = prepare(run, e);
    if (r == 0)
        r = create_container(run, e);
    lease_suspend(run->cli);
    return r;
}

static int run_to_end(struct run *run, struct err *e)
{
    uint32_t status = 0;
    int r = process_start(&run->process, e);

    if (r < 0)
        return r;
    r = process_wait(&run->process, &status, e);
    return r < 0 ? r : (int)status;
}

static void run_done(struct run *run)
{
    lease_end(run->cli, &run->lease);
    process_done(&run->process);
    image_done(&run->image);
    run_plan_done(&run->plan);
    if (run->rootfs)
        pb_free(&run->rootfs->base);
    free(run->log_path);
}

static int cmd_run(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct run_options *o = options;
    _cleanup_(run_done) struct run run = {.cli = cli, .options = o};
    struct err ignored = ERR_INIT;
    bool started = false;
    int r;

    process_init(&run.process, cli, run.plan.id, "");
    run.snapshotter = image_snapshotter(o->snapshotter);
    r = run_plan_make(o, cli->namespace_, &run.plan, e);
    if (r == 0 && !o->detach)
        r = process_check_terminal(o->terminal, o->interactive, e);
    if (r == 0)
        r = cli_catch_signals(cli, e);
    if (r == 0)
        r = build(&run, argc, argv, e);
    if (r == 0)
        r = create_task(&run, e);
    if (r == 0) {
        r = o->detach ? start_detached(&run, e) : run_to_end(&run, e);
        started = r >= 0 || run.process.started;
    }
    terminal_restore(&run.process.terminal);
    if (!started) {
        int code = process_start_failure(e);

        if (r == ERR_RETURN && cli->interrupted)
            code = 128 + cli->interrupted;
        clean_up(&run, &ignored);
        return code == CLI_EXIT_WHERRY ? r : command_fail(e, code);
    }
    if (r >= 0 && !o->detach && end(&run, e) < 0)
        return command_fail(e, CLI_EXIT_WHERRY);
    if (r >= 0 && !o->detach && o->remove && !run.process.detached && clean_up(&run, e) < 0)
        return command_fail(e, CLI_EXIT_WHERRY);
    return r;
}

const struct command commands_run[] = {
    {
        .name = "run",
        .usage = "[FLAGS] IMAGE [COMMAND [ARGUMENT...]]",
        .summary = "make a container of an image and run it",
        .detail =
            "What stands behind IMAGE belongs to the container. Without -d its output comes here, "
            "its\n"
            "exit code becomes ours, signals are passed on (the third ctrl-c kills), and with -t\n"
            "ctrl-p ctrl-q leaves it running. Failures of wherry itself exit with 125; 126 and "
            "127\n"
            "mean that COMMAND cannot be run or is not there.",
        .flags = &run_flags,
        .options_size = sizeof(struct run_options),
        .options_first = true,
        .own_failures_are_125 = true,
        .min_args = 1,
        .max_args = -1,
        .run = cmd_run,
    },
    {},
};

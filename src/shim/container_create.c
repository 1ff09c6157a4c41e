/* SPDX-License-Identifier: Apache-2.0 */
/* How a container comes into being: its OCI runtime is found, its rootfs mounted, init created. */
#include <malloc.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "oci/config.h"
#include "oci/runtime_choice.h"
#include "shim/container.h"
#include "shim/sandbox.h"
#include "shim/topics.h"

static int choose_runtime(struct container *c, const char *name, const char *oci_version,
                          struct err *e)
{
    _cleanup_(runtime_facts_done) struct runtime_facts facts = {};
    _cleanup_(runtime_choice_done) struct runtime_choice choice = {};

    if (!str_empty(name))
        return runtime_find(name, &c->runtime.path, e);
    int r = runtime_facts_find(NULL, NULL, NULL, &facts);
    if (r < 0)
        return err_oom(e);
    if (runtime_choice_make(&facts, oci_version, &choice, e) < 0)
        return ERR_RETURN;
    log_info("container %s: %s", c->id, choice.why);
    c->runtime.path = TAKE(choice.path);
    return 0;
}

static int set_up_runtime(struct container *c, const struct container_request *request,
                          struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {};
    struct shim *s = c->shim;
    struct err why = ERR_INIT;
    const char *name = request->runtime_name;

    /* The runtime judges a broken configuration better than we do. */
    if (oci_config_load(c->bundle, &config, &why) < 0)
        log_warn("container %s: %s", c->id, why.msg);
    c->has_private_pids = config.has_private_pids;
    if (str_empty(name))
        name = c->options.binary_name;
    if (choose_runtime(c, name, config.oci_version, e) < 0)
        return err_wrap(e, "OCI runtime create failed");
    c->runtime.root = !c->options.root && s->runtime_root
                          ? fs_join(s->runtime_root, s->namespace_)
                          : options_runtime_root(&c->options, s->namespace_);
    c->runtime.bundle = strdup(c->bundle);
    c->runtime.log = fs_join(c->bundle, "log.json");
    const char *criu = c->options.criu_path ? c->options.criu_path : s->criu;
    c->runtime.criu = str_empty(criu) ? NULL : strdup(criu);
    c->runtime.systemd_cgroup = c->options.systemd_cgroup || s->systemd_cgroup;
    c->runtime.environment = s->environment;
    c->runtime.debug = s->debug;
    if (!c->runtime.root || !c->runtime.bundle || !c->runtime.log ||
        (!str_empty(criu) && !c->runtime.criu))
        return err_oom(e);
    int r = options_save(&c->options, c->bundle, c->runtime.path);
    if (r < 0)
        return err_errno(e, r, "failed to write the options into bundle %s", c->bundle);
    if (s->sandbox)
        sandbox_keep_files(s->sandbox, c);
    return 0;
}

static int mount_rootfs(struct container *c, const struct mount_list *mounts, struct err *e)
{
    if (!mounts || mounts->n == 0)
        return 0;
    if (mkdir(c->rootfs, 0711) < 0 && errno != EEXIST)
        return err_errno(e, -errno, "failed to make directory %s", c->rootfs);
    if (mount_all(mounts, c->rootfs, e) < 0)
        return err_wrap(e, "failed to mount rootfs component");
    c->n_mounts = mounts->n;
    return 0;
}

static int validate(const struct shim *s, const struct container_request *request, struct err *e)
{
    if (identifier_validate(request->id, e) < 0)
        return ERR_RETURN;
    if (str_empty(request->bundle) || request->bundle[0] != '/')
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "bundle \"%.500s\" is not an absolute path: invalid argument",
                       str_or_empty(request->bundle));
    if (map_get(&s->containers, request->id))
        return err_set(e, ERR_ALREADY_EXISTS, "container %s: already exists", request->id);
    return 0;
}

/* With init and a reference for the caller. */
static int container_new(struct shim *s, const struct container_request *request,
                         struct container **ret, struct err *e)
{
    struct container *c = calloc(1, sizeof(*c));

    if (!c)
        return err_oom(e);
    *c = (struct container){.refs = 1, .shim = s, .runtime = RUNTIME_NULL, .oom = OOM_INIT};
    list_push_back(&s->alive, &c->link);
    list_init(&c->runtime.calls);
    c->id = strdup(request->id);
    c->bundle = strdup(request->bundle);
    c->rootfs = fs_join(request->bundle, "rootfs");
    c->init = process_new(c, NULL);
    int r = 0;
    if (!c->id || !c->bundle || !c->rootfs || !c->init ||
        str_dup_given(request->checkpoint, &c->checkpoint) < 0 ||
        str_dup_given(request->parent_checkpoint, &c->parent_checkpoint) < 0 ||
        process_set_streams(c->init, request->terminal, request->stdin_path, request->stdout_path,
                            request->stderr_path) < 0)
        r = err_oom(e);
    else if (s->sandbox)
        r = sandbox_add_container(s->sandbox, c, e);
    if (r == 0 && map_add(&s->containers, request->id, c) < 0)
        r = err_oom(e);
    if (r < 0) {
        c->init = process_unref(c->init);
        container_unref(c);
        return r;
    }
    s->changed(s);
    *ret = c;
    return 0;
}

static void publish_create(struct container *c, const struct mount_list *mounts)
{
    Pb__Event__TaskCreate event = PB__EVENT__TASK_CREATE__INIT;
    Pb__Event__TaskIO io = PB__EVENT__TASK_IO__INIT;
    _free_ Pb__Types__Mount *messages = calloc(MAX_OF(mounts->n, (size_t)1), sizeof(*messages));
    _free_ Pb__Types__Mount **pointers = calloc(MAX_OF(mounts->n, (size_t)1), sizeof(*pointers));

    for (size_t i = 0; messages && pointers && i < mounts->n; i++) {
        const struct mount *m = &mounts->mounts[i];
        pb__types__mount__init(&messages[i]);
        messages[i].type = (char *)str_or_empty(m->type);
        messages[i].source = (char *)str_or_empty(m->source);
        messages[i].target = (char *)str_or_empty(m->target);
        messages[i].options = m->options;
        messages[i].n_options = strv_len(m->options);
        pointers[i] = &messages[i];
        event.n_rootfs = i + 1;
    }
    io.stdin = (char *)str_or_empty(c->init->stdin_path);
    io.stdout = (char *)str_or_empty(c->init->stdout_path);
    io.stderr = (char *)str_or_empty(c->init->stderr_path);
    io.terminal = c->init->terminal;
    event.container_id = c->id;
    event.bundle = c->bundle;
    event.rootfs = pointers;
    event.io = &io;
    event.checkpoint = (char *)str_or_empty(c->checkpoint);
    event.pid = (uint32_t)c->init->exit.pid;
    container_publish(c, TOPIC_CREATE, &event.base);
}

/* Ends a create that failed, with everything undone that can be. */
static void finish_undo(struct op *op)
{
    struct container *c = op->process->container;

    stdio_done(&c->init->io);
    if (c->n_mounts > 0)
        mount_unmount_below(c->rootfs);
    c->init->state = PROCESS_DELETED;
    container_forget(c); /* op holds a reference */
    op_end(op, &op->error);
    malloc_trim(0);
}

static void undo_create(struct op *op)
{
    if (op->runtime_called)
        container_undo_launch(op, finish_undo);
    else
        finish_undo(op);
}

static void add_create_args(struct op *op, struct runtime_args *args, const char *console)
{
    struct container *c = op->process->container;

    runtime_args_add(args, "create");
    runtime_args_add(args, "--bundle");
    runtime_args_add(args, c->bundle);
    runtime_args_add(args, "--pid-file");
    runtime_args_add(args, op->text);
    if (console) {
        runtime_args_add(args, "--console-socket");
        runtime_args_add(args, console);
    }
    if (c->options.no_pivot_root)
        runtime_args_add(args, "--no-pivot");
    if (c->options.no_new_keyring)
        runtime_args_add(args, "--no-new-keyring");
    runtime_args_add(args, c->id);
}

/* Of the call that began the create: its mounts are for the event. */
struct creation {
    struct mount_list mounts;
    done_fn done;
    void *userdata;
};

static void creation_done(void *userdata, const struct err *e)
{
    struct creation *creation = userdata;

    creation->done(creation->userdata, e);
    mount_list_done(&creation->mounts);
    free(creation);
}

static void on_created(struct op *op)
{
    struct process *p = process_ref(op->process);
    struct container *c = p->container;
    const struct creation *creation = op->userdata;

    if (op->error.code != ERR_OK) {
        undo_create(op);
    } else {
        if (p->exit.pid > 0)
            container_find_cgroup(c);
        p->state = PROCESS_CREATED;
        publish_create(c, &creation->mounts);
        p->is_launching = false;
        op_end(op, NULL);
        process_tell_end(p);
        malloc_trim(0);
    }
    process_unref(p);
}

static void create_begin(struct op *op)
{
    struct container *c = op->process->container;
    _free_ char *pid_file = fs_join(c->bundle, "init.pid");

    if (!pid_file) {
        err_oom(&op->error);
        undo_create(op);
        return;
    }
    if (c->checkpoint) { /* the process comes into being at its start */
        on_created(op);
        return;
    }
    process_launch(op, &(struct process_launch){
                           .command = "create",
                           .pid_file = pid_file,
                           .timeout_ms = PROCESS_LAUNCH_TIMEOUT_MS,
                           .add_args = add_create_args,
                           .launched = on_created,
                       });
}

void container_begin(struct shim *s, const struct container_request *request, done_fn done,
                     void *userdata)
{
    struct container *c = NULL;
    struct err e = ERR_INIT;

    if (validate(s, request, &e) < 0 || container_new(s, request, &c, &e) < 0) {
        done(userdata, &e);
        return;
    }
    struct creation *creation = calloc(1, sizeof(*creation));
    struct op *op = NULL;
    if (!creation) {
        err_oom(&e);
        done(userdata, &e);
    } else {
        *creation = (struct creation){.done = done, .userdata = userdata};
        op = op_new(c->init, true, create_begin, creation_done, creation);
    }
    if (!op) {
        container_forget(c);
        return;
    }
    for (size_t i = 0; request->rootfs && i < request->rootfs->n && op->error.code == ERR_OK; i++) {
        const struct mount *m = &request->rootfs->mounts[i];
        if (mount_list_add(&creation->mounts, m->type, m->source, m->target, m->options) < 0)
            err_oom(&op->error);
    }
    if (op->error.code != ERR_OK || options_decode(request->options, &c->options, &op->error) < 0 ||
        set_up_runtime(c, request, &op->error) < 0 ||
        mount_rootfs(c, request->rootfs, &op->error) < 0) {
        c->init->current = op;
        undo_create(op);
        return;
    }
    op_submit(op);
}

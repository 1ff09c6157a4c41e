/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/container.h"

#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <sys/mount.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "oci/config.h"
#include "oci/runtime_choice.h"
#include "shim/sandbox.h"
#include "shim/topics.h"
#include "wire/pb.h"

/* How long init's end waits for those of execs which do not come. */
#define EXECS_END_TIMEOUT_MS 10000
#define UNMOUNT_RETRY_MS 10
#define UNMOUNT_TRIES 20
#define SPEC_MAX (4u << 20)

struct container *container_ref(struct container *c)
{
    c->refs++;
    return c;
}

struct container *container_unref(struct container *c)
{
    if (!c || --c->refs > 0)
        return NULL;
    struct shim *s = c->shim;
    event_timer_disarm(&c->end_timer);
    oom_done(&c->oom);
    cgroup_done(&c->cgroup);
    runtime_done(&c->runtime);
    options_done(&c->options);
    map_done(&c->execs);
    free(c->checkpoint);
    free(c->parent_checkpoint);
    free(c->rootfs);
    free(c->bundle);
    free(c->id);
    list_remove(&c->link);
    free(c);
    if (s->idle)
        s->idle(s);
    return NULL;
}

struct container *container_find(const struct shim *s, const char *id, struct err *e)
{
    struct container *c = map_get(&s->containers, str_or_empty(id));

    if (!c || c->init->state == PROCESS_CREATING) {
        err_set(e, ERR_NOT_FOUND, "container not created: not found");
        return NULL;
    }
    return c;
}

struct process *container_find_creating(const struct shim *s, const char *id)
{
    struct container *c = map_get(&s->containers, str_or_empty(id));

    return c && c->init->state == PROCESS_CREATING ? c->init : NULL;
}

struct process *container_process(struct container *c, const char *exec_id, struct err *e)
{
    if (str_empty(exec_id))
        return c->init;
    struct process *p = map_get(&c->execs, exec_id);
    if (!p)
        err_set(e, ERR_NOT_FOUND, "process does not exist %s: not found", exec_id);
    return p;
}

struct process *container_process_by_pid(struct container *c, pid_t pid)
{
    if (c->init->exit.pid == pid)
        return c->init;
    MAP_FOREACH (entry, &c->execs) {
        struct process *p = entry->value;
        if (p->exit.pid == pid && p->state == PROCESS_RUNNING)
            return p;
    }
    return NULL;
}

void container_publish(struct container *c, const char *topic, const ProtobufCMessage *event)
{
    if (!c->shim->v1) /* there the daemon tells what it asked for */
        c->shim->publish(c->shim, topic, event);
}

/* Creation. */

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

static int take_text(char **to, const char *from)
{
    if (str_empty(from))
        return 0;
    *to = strdup(from);
    return *to ? 0 : -ENOMEM;
}

static int set_streams(struct process *p, bool terminal, const char *stdin_path,
                       const char *stdout_path, const char *stderr_path)
{
    p->terminal = terminal;
    if (take_text(&p->stdin_path, stdin_path) < 0 || take_text(&p->stdout_path, stdout_path) < 0 ||
        take_text(&p->stderr_path, stderr_path) < 0)
        return -ENOMEM;
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
        take_text(&c->checkpoint, request->checkpoint) < 0 ||
        take_text(&c->parent_checkpoint, request->parent_checkpoint) < 0 ||
        set_streams(c->init, request->terminal, request->stdin_path, request->stdout_path,
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

/* Nothing of it is known to clients any more. The map's reference goes to the caller. */
static void forget(struct container *c)
{
    struct shim *s = c->shim;

    event_timer_disarm(&c->end_timer);
    oom_done(&c->oom);
    map_remove(&s->containers, c->id);
    if (s->sandbox)
        sandbox_remove_container(s->sandbox, c);
    while (c->execs.n > 0) {
        struct process *last = NULL;
        MAP_FOREACH (entry, &c->execs)
            last = entry->value;
        map_remove(&c->execs, last->exec_id);
        last->state = PROCESS_DELETED;
        stdio_hurry(&last->io);
        process_unref(last);
    }
    s->changed(s);
}

void container_cut_short(struct container *c)
{
    runtime_close(&c->runtime);
    stdio_hurry(&c->init->io);
    MAP_FOREACH (entry, &c->execs) {
        struct process *p = entry->value;
        stdio_hurry(&p->io);
    }
}

void container_forget(struct container *c)
{
    process_unref(c->init);
    forget(c);
    container_unref(c);
}

static void on_oom(struct oom *oom)
{
    struct container *c = container_of(oom, struct container, oom);
    Pb__Event__TaskOOM event = PB__EVENT__TASK_OOM__INIT;

    event.container_id = c->id;
    c->shim->publish(c->shim, TOPIC_OOM, &event.base);
}

/* The group is learned while init is alive, or at least not reaped. */
void container_find_cgroup(struct container *c)
{
    int r = cgroup_init(&c->cgroup, c->init->exit.pid);
    if (r >= 0)
        r = cgroup_save(&c->cgroup, c->bundle);
    if (r >= 0 && c->shim->sandbox)
        sandbox_keep_files(c->shim->sandbox, c);
    if (r >= 0 && !c->shim->v1)
        r = oom_watch(&c->oom, c->shim->loop, &c->cgroup, on_oom);
    if (r < 0)
        log_warn("container %s: no metrics and no word of memory shortage: %s", c->id,
                 err_strerror(r));
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

void container_has_started(struct container *c)
{
    Pb__Event__TaskStart event = PB__EVENT__TASK_START__INIT;

    c->init->state = PROCESS_RUNNING;
    event.container_id = c->id;
    event.pid = (uint32_t)c->init->exit.pid;
    container_publish(c, TOPIC_START, &event.base);
}

/* Ends. */

static bool has_live_execs(struct container *c)
{
    MAP_FOREACH (entry, &c->execs) {
        const struct process *p = entry->value;
        bool is_told = p->state == PROCESS_STOPPED || p->state == PROCESS_DELETED;
        if (p->is_launching || child_is_alive(&p->child) || (p->has_ended && !is_told))
            return true;
    }
    return false;
}

static void tell_init_end(struct container *c)
{
    container_ref(c);
    event_timer_disarm(&c->end_timer);
    c->init_end_pending = false;
    process_publish_end(c->init);
    container_unref(c);
}

static void try_to_tell_init_end(struct container *c)
{
    if (c->init_end_pending && !has_live_execs(c) && !process_is_held(c->init))
        tell_init_end(c);
}

static void on_end_timer(struct event_timer *timer)
{
    struct container *c = container_of(timer, struct container, end_timer);

    log_warn("container %s has ended, but not all processes that were added to it", c->id);
    tell_init_end(c);
}

void container_init_ended(struct container *c)
{
    if (!c->init_end_pending) {
        c->init_end_pending = true;
        oom_check(&c->oom);
        if (process_is_paused(c->init) && cgroup_is_known(&c->cgroup))
            cgroup_thaw(&c->cgroup);
        if (!c->has_private_pids && cgroup_is_known(&c->cgroup) && cgroup_kill(&c->cgroup) < 0)
            log_warn("container %s: what is left of it could not be killed", c->id);
        if (has_live_execs(c))
            event_timer_arm(c->shim->loop, &c->end_timer, EXECS_END_TIMEOUT_MS, on_end_timer);
    }
    try_to_tell_init_end(c);
}

void container_exec_ended(struct container *c)
{
    try_to_tell_init_end(c);
}

static void on_unmount_again(struct event_timer *timer);

static void unmount_rootfs(struct op *op)
{
    struct container *c = op->process->container;
    int r = 0;

    if (c->n_mounts == 1)
        r = mount_unmount_once(c->rootfs, op->tries < UNMOUNT_TRIES ? 0 : MNT_DETACH);
    else if (c->n_mounts > 1)
        r = mount_unmount_below(c->rootfs);
    if (r == -EBUSY && op->tries++ < UNMOUNT_TRIES) {
        event_timer_arm(c->shim->loop, &op->timer, UNMOUNT_RETRY_MS, on_unmount_again);
        return;
    }
    if (r < 0)
        log_warn("failed to unmount %s: %s", c->rootfs, err_strerror(r));
    op->launched(op);
    container_forget(c);
}

static void on_unmount_again(struct event_timer *timer)
{
    unmount_rootfs(container_of(timer, struct op, timer));
}

void container_release(struct container *c, struct op *op, op_fn fn)
{
    op->launched = fn;
    op->tries = 0;
    if (cgroup_is_known(&c->cgroup) && (!c->has_private_pids || c->lost_runtime))
        cgroup_remove(&c->cgroup); /* what the runtime found busy when it deleted */
    unmount_rootfs(op);
}

/* Execs. */

/* The request's terminal counts, whatever the document says. */
static int make_spec(const struct container_exec *request, char **ret, struct err *e)
{
    json_error_t why;

    if (request->spec_len > SPEC_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "exec spec is larger than %u bytes: invalid argument", SPEC_MAX);
    json_t *spec = json_loadb(request->spec, request->spec_len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(spec)) {
        json_decref(spec);
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "exec spec is not a JSON object: %s: invalid argument", why.text);
    }
    if (json_is_true(json_object_get(spec, "terminal")) != request->terminal)
        json_object_set_new(spec, "terminal", json_boolean(request->terminal));
    char *text = json_dumps(spec, JSON_COMPACT);
    json_decref(spec);
    if (!text)
        return err_oom(e);
    *ret = text;
    return 0;
}

static int check_exec(const struct container *c, const struct container_exec *request,
                      struct err *e)
{
    if (identifier_validate(request->exec_id, e) < 0)
        return ERR_RETURN;
    if (map_get(&c->execs, request->exec_id) || str_eq(request->exec_id, c->id))
        return err_set(e, ERR_ALREADY_EXISTS, "id %s: already exists", request->exec_id);
    if (process_is_paused(c->init) || c->init->state == PROCESS_STOPPED ||
        c->init->state == PROCESS_DELETED)
        return process_refuse(c->init, "exec", e);
    if (c->execs.n >= CONTAINER_EXECS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "container %s has %d execs already", c->id,
                       CONTAINER_EXECS_MAX);
    return 0;
}

int container_exec(struct container *c, const struct container_exec *request, struct err *e)
{
    Pb__Event__TaskExecAdded event = PB__EVENT__TASK_EXEC_ADDED__INIT;
    _free_ char *spec = NULL;

    if (check_exec(c, request, e) < 0 || make_spec(request, &spec, e) < 0)
        return ERR_RETURN;
    struct process *p = process_new(c, request->exec_id);
    if (!p ||
        set_streams(p, request->terminal, request->stdin_path, request->stdout_path,
                    request->stderr_path) < 0 ||
        map_add(&c->execs, request->exec_id, p) < 0) {
        process_unref(p);
        return err_oom(e);
    }
    p->spec = TAKE(spec);
    event.container_id = c->id;
    event.exec_id = p->exec_id;
    container_publish(c, TOPIC_EXEC_ADDED, &event.base);
    return 0;
}

void container_remove_exec(struct container *c, struct process *p)
{
    if (map_get(&c->execs, p->exec_id) != p)
        return;
    map_remove(&c->execs, p->exec_id);
    process_unref(p);
}

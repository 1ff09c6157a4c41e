/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/sandbox.h"

#include <fcntl.h>
#include <sched.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/identifier.h"
#include "base/log.h"
#include "base/str.h"
#include "shim/container.h"

struct sandbox_waiter {
    struct list link;
    sandbox_fn fn;
    void *userdata;
};

static struct sandbox *sandbox_unref(struct sandbox *sb)
{
    if (!sb || --sb->refs > 0)
        return NULL;
    free(sb->id);
    free(sb->bundle);
    free(sb->rootfs);
    free(sb->netns_path);
    free(sb);
    return NULL;
}

/* Where a container is noted. NULL: out of memory. */
static char *note_path(const struct sandbox *sb, const struct container *c)
{
    return str_printf("%s/" SANDBOX_CONTAINERS "/%s", sb->bundle, c->id);
}

static int join_namespaces(const char *netns_path, struct err *e)
{
    _close_ int fd = open(netns_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "failed to open network namespace %.300s: %s: failed precondition",
                       netns_path, err_strerror(errno));
    if (setns(fd, CLONE_NEWNET) < 0 || unshare(CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "failed to join network namespace %.300s: %s: failed precondition",
                       netns_path, err_strerror(errno));
    return 0;
}

static int mount_rootfs(struct sandbox *sb, const struct mount_list *mounts, struct err *e)
{
    if (!mounts || mounts->n == 0)
        return 0;
    if (mkdir(sb->rootfs, 0711) < 0 && errno != EEXIST)
        return err_errno(e, -errno, "failed to make directory %s", sb->rootfs);
    if (mount_all(mounts, sb->rootfs, e) < 0)
        return err_wrap(e, "failed to mount rootfs component");
    sb->n_mounts = mounts->n;
    return 0;
}

static void unmount_rootfs(struct sandbox *sb)
{
    int r = sb->n_mounts > 0 ? mount_unmount_below(sb->rootfs) : 0;

    if (r < 0)
        log_warn("sandbox %s: failed to unmount %s: %s", sb->id, sb->rootfs, err_strerror(r));
    sb->n_mounts = 0;
}

static int check_request(const struct shim *s, const struct sandbox_request *request, struct err *e)
{
    if (identifier_validate(request->id, e) < 0)
        return err_wrap(e, "sandbox id");
    if (s->sandbox && str_eq(s->sandbox->id, request->id))
        return err_set(e, ERR_ALREADY_EXISTS, "sandbox %s: already exists", request->id);
    if (s->sandbox)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "this shim is that of sandbox %s: failed precondition", s->sandbox->id);
    if (str_empty(request->bundle) || request->bundle[0] != '/')
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "bundle \"%.500s\" is not an absolute path: invalid argument",
                       str_or_empty(request->bundle));
    return 0;
}

int sandbox_create(struct shim *s, const struct sandbox_request *request, struct err *e)
{
    if (check_request(s, request, e) < 0)
        return ERR_RETURN;
    struct sandbox *sb = calloc(1, sizeof(*sb));
    if (!sb)
        return err_oom(e);
    *sb = (struct sandbox){.refs = 1, .shim = s, .created_at = clock_realtime()};
    list_init(&sb->waiters);
    sb->id = strdup(request->id);
    sb->bundle = strdup(request->bundle);
    sb->rootfs = fs_join(request->bundle, "rootfs");
    if (!str_empty(request->netns_path))
        sb->netns_path = strdup(request->netns_path);
    if (!sb->id || !sb->bundle || !sb->rootfs ||
        (!str_empty(request->netns_path) && !sb->netns_path)) {
        sandbox_unref(sb);
        return err_oom(e);
    }
    if (mount_rootfs(sb, request->rootfs, e) < 0 ||
        (sb->netns_path && join_namespaces(sb->netns_path, e) < 0)) {
        unmount_rootfs(sb);
        sandbox_unref(sb);
        return ERR_RETURN;
    }
    s->sandbox = sb;
    s->is_leaving = false;
    log_debug("sandbox %s: created", sb->id);
    s->changed(s);
    return 0;
}

struct sandbox *sandbox_find(const struct shim *s, const char *id, struct err *e)
{
    if (s->sandbox && str_eq(s->sandbox->id, str_or_empty(id)))
        return s->sandbox;
    err_set(e, ERR_NOT_FOUND, "sandbox %.100s: not found", str_or_empty(id));
    return NULL;
}

static int refuse_ending(const struct sandbox *sb, const char *what, struct err *e)
{
    return err_set(e, ERR_FAILED_PRECONDITION, "cannot %s %s: failed precondition", what,
                   sb->state == SANDBOX_STOPPING ? "a sandbox that is being stopped"
                                                 : "a stopped sandbox");
}

int sandbox_start(struct sandbox *sb, struct err *e)
{
    if (sb->state >= SANDBOX_STOPPING)
        return refuse_ending(sb, "start", e);
    sb->state = SANDBOX_READY;
    return 0;
}

int sandbox_wait(struct sandbox *sb, sandbox_fn fn, void *userdata, struct err *e)
{
    if (sb->state == SANDBOX_STOPPED) {
        fn(userdata, sb);
        return 0;
    }
    if (sb->n_waiters >= SANDBOX_WAITERS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "more than %d calls wait for sandbox %s already",
                       SANDBOX_WAITERS_MAX, sb->id);
    struct sandbox_waiter *w = malloc(sizeof(*w));
    if (!w)
        return err_oom(e);
    *w = (struct sandbox_waiter){.fn = fn, .userdata = userdata};
    list_push_back(&sb->waiters, &w->link);
    sb->n_waiters++;
    return 0;
}

static void become_stopped(struct sandbox *sb)
{
    sb->state = SANDBOX_STOPPED;
    sb->exited_at = clock_realtime();
    log_debug("sandbox %s: stopped", sb->id);
    for (struct list *l; (l = list_pop_front(&sb->waiters));) {
        struct sandbox_waiter *w = container_of(l, struct sandbox_waiter, link);
        sb->n_waiters--;
        w->fn(w->userdata, sb);
        free(w);
    }
}

/* Whoever is counted in n_ending holds a reference. */
static void one_has_ended(struct sandbox *sb)
{
    if (--sb->n_ending == 0 && sb->state == SANDBOX_STOPPING)
        become_stopped(sb);
    sandbox_unref(sb);
}

static void on_container_ended(void *userdata, const struct process_exit *exit)
{
    one_has_ended(userdata);
}

static void on_killed(void *userdata, const struct err *e)
{
    if (e && e->code != ERR_NOT_FOUND)
        log_warn("a container of the sandbox could not be killed: %s", e->msg);
}

/* By its control group where that is known: the OCI runtime would not reach a paused one. */
static void kill_container(struct container *c)
{
    if (!cgroup_is_known(&c->cgroup) || cgroup_kill(&c->cgroup) < 0)
        process_kill(c->init, SIGKILL, true, on_killed, NULL);
}

static void kill_in_turn(struct op *op)
{
    if (op->process->exit.pid > 0)
        kill_container(op->process->container);
    op_end(op, NULL);
}

static void end_container(struct sandbox *sb, struct container *c)
{
    struct process *init = c->init;
    struct err e = ERR_INIT;

    if (init->has_ended || (init->state == PROCESS_CREATED && init->exit.pid == 0))
        return; /* the latter is to be restored from a checkpoint, and has no process */
    container_ref(c);
    sb->refs++;
    sb->n_ending++;
    if (process_wait(init, on_container_ended, sb, &e) < 0) {
        log_warn("container %s is not waited for: %s", c->id, e.msg);
        one_has_ended(sb);
    }
    if (init->state == PROCESS_CREATING) {
        struct op *op = op_new(init, true, kill_in_turn, on_killed, NULL);
        if (op)
            op_submit(op);
    } else {
        kill_container(c);
    }
    container_unref(c);
}

int sandbox_stop(struct sandbox *sb, sandbox_fn fn, void *userdata, struct err *e)
{
    if (sandbox_wait(sb, fn, userdata, e) < 0)
        return ERR_RETURN;
    if (sb->state >= SANDBOX_STOPPING)
        return 0;
    sb->state = SANDBOX_STOPPING;
    /* A count of our own: those that end at once must not end it all. */
    sb->refs++;
    sb->n_ending++;
    MAP_FOREACH (entry, &sb->shim->containers)
        end_container(sb, entry->value);
    one_has_ended(sb);
    return 0;
}

static void remove_notes(struct sandbox *sb)
{
    _free_ char *dir = str_printf("%s/" SANDBOX_CONTAINERS, sb->bundle);

    if (dir)
        fs_rm_rf(AT_FDCWD, dir);
}

void sandbox_shut_down(struct sandbox *sb)
{
    struct shim *s = sb->shim;

    if (sb->state != SANDBOX_STOPPED)
        become_stopped(sb);
    unmount_rootfs(sb);
    remove_notes(sb);
    sb->shim = NULL;
    s->sandbox = NULL;
    s->is_leaving = true;
    s->changed(s);
    sandbox_unref(sb);
}

void sandbox_leave(struct sandbox *sb)
{
    if (!sb)
        return;
    if (sb->state != SANDBOX_STOPPED)
        become_stopped(sb);
    sb->shim->sandbox = NULL;
    sb->shim = NULL;
    sandbox_unref(sb);
}

static int write_note(const struct sandbox *sb, const struct container *c)
{
    _free_ char *all = str_printf("%s/" SANDBOX_CONTAINERS, sb->bundle);
    _free_ char *own = note_path(sb, c);
    _free_ char *bundle = own ? fs_join(own, "bundle") : NULL;

    if (!all || !bundle)
        return -ENOMEM;
    if ((mkdir(all, 0700) < 0 && errno != EEXIST) || (mkdir(own, 0700) < 0 && errno != EEXIST) ||
        (symlink(c->bundle, bundle) < 0 && errno != EEXIST))
        return -errno;
    return 0;
}

int sandbox_add_container(struct sandbox *sb, const struct container *c, struct err *e)
{
    if (sb->state >= SANDBOX_STOPPING)
        return refuse_ending(sb, "add a container to", e);
    int r = write_note(sb, c);
    return r < 0 ? err_errno(e, r, "failed to note container %s in %s", c->id, sb->bundle) : 0;
}

void sandbox_keep_files(struct sandbox *sb, const struct container *c)
{
    static const char *const names[] = {"config.json", "options.json", "runtime", "cgroup"};
    _free_ char *note = note_path(sb, c);

    for (size_t i = 0; note && i < ARRAY_SIZE(names); i++) {
        _free_ char *from = fs_join(c->bundle, names[i]);
        _free_ char *to = fs_join(note, names[i]);
        if (from && to && link(from, to) < 0 && errno != EEXIST && errno != ENOENT)
            log_warn("sandbox %s: failed to keep %s of container %s: %s", sb->id, names[i], c->id,
                     err_strerror(errno));
    }
}

void sandbox_remove_container(struct sandbox *sb, const struct container *c)
{
    _free_ char *note = note_path(sb, c);

    if (note)
        fs_rm_rf(AT_FDCWD, note);
}

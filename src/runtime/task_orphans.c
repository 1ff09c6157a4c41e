/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At the start of a daemon: what no bundle leads to, since the state directory was wiped (or what
 * it lay on unmounted) while shims ran.
 *
 * A shim whose bundle is gone is asked to end, by SIGTERM: it knows its containers, ends them in
 * order and tells their ends. One that does not is killed, its containers before it, so that a
 * daemon that dies in between still finds the rest through the shim. Until then its task is one
 * under recovery: calls on it wait, and its name is taken.
 *
 * A socket file whose shim is dead is removed.
 *
 * All of /proc is read for that, on a thread of the pool: clients are served meanwhile, but a task
 * is created only when it is known whose names are taken.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "runtime/linux_bundle.h"
#include "runtime/shim_find.h"
#include "runtime/tasks_private.h"

/* How often it is looked whether we end ourselves. */
#define END_SLICE_MS 100
#define KILL_TIMEOUT_MS 5000
#define KILL_ROUNDS 100
#define KILL_PAUSE_US 20000
#define CHILDREN_MAX (1u << 20)
#define SOCKET_NAME_LEN 64
/* A socket that is bound and refuses may be about to listen; not for so long. */
#define SOCKET_AGE_S 60

struct orphan {
    struct workq_job job;
    struct task *task; /* a reference; registered, unless its name is another's by now */
    struct proc proc;
};

/* What is in a container of the shim: the group of one of its children. Not the group that the shim
 * is in itself, or one above: others may be there. */
static bool is_container_group(const struct cgroup *child, const struct cgroup *shim)
{
    static const char *const controllers[] = {NULL, "pids", "memory", "devices", "cpu"};

    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
        _free_ char *dir = cgroup_dir(child, controllers[i]);
        _free_ char *own = cgroup_dir(shim, controllers[i]);
        const char *rest = dir && own ? str_after_prefix(own, dir) : NULL;
        if (dir && (!rest || (*rest && *rest != '/')))
            return true;
    }
    return false;
}

static void kill_group(const struct cgroup *group)
{
    int left = 1;

    for (int i = 0; left > 0 && i < KILL_ROUNDS; i++) {
        if (i > 0)
            usleep(KILL_PAUSE_US);
        left = cgroup_kill(group);
    }
}

/* A child of the shim, with all that is in its group. */
static void kill_child(struct orphan *o, pid_t pid, const struct cgroup *shim)
{
    _cleanup_(proc_done) struct proc child = PROC_NULL;
    _cleanup_(cgroup_done) struct cgroup group = {0};

    if (proc_open(pid, &child) < 0 || cgroup_init(&group, pid) < 0)
        return;
    proc_kill(&child, SIGKILL);
    if (!is_container_group(&group, shim))
        return;
    /* The cleanup that follows begins with the group that the bundle names. */
    if (!fs_exists(o->task->bundle.dir_fd, "cgroup"))
        cgroup_save(&group, o->task->bundle.path);
    atomic_store(&o->task->start_seen, true);
    kill_group(&group);
    cgroup_remove(&group);
}

static void kill_children(struct orphan *o)
{
    _cleanup_(cgroup_done) struct cgroup shim = {0};
    _free_ char *children = NULL;
    char path[64];
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)o->proc.pid, (int)o->proc.pid);
    if (cgroup_init(&shim, o->proc.pid) < 0 ||
        fs_read_file(AT_FDCWD, path, CHILDREN_MAX, &children, &n) < 0)
        return;
    char *end = children;
    for (long pid; (pid = strtol(end, &end, 10)) > 1;)
        kill_child(o, (pid_t)pid, &shim);
}

static bool ends_by_itself(struct orphan *o)
{
    struct tasks *t = o->task->tasks;
    uint64_t deadline = clock_monotonic_ms() + t->options.host.cleanup_timeout_ms;

    /* One that was stopped has nobody else who could ever let it go on. */
    if (proc_kill(&o->proc, SIGTERM) < 0 || proc_kill(&o->proc, SIGCONT) < 0)
        return true;
    while (!atomic_load(&t->detached) && clock_monotonic_ms() < deadline)
        if (proc_wait_end(&o->proc, END_SLICE_MS) == 1)
            return true;
    return false;
}

static void orphan_free(struct orphan *o)
{
    task_unref(o->task);
    proc_done(&o->proc);
    free(o);
}

void shim_socket_remove_dead(const char *path)
{
    _close_ int fd = -EBADF;
    struct stat st;

    /* Other files refuse connections, too. */
    if (path && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) &&
        sock_connect(path, 0, &fd) == -ECONNREFUSED)
        unlink(path);
}

static void end_run(struct workq_job *job)
{
    struct orphan *o = container_of(job, struct orphan, job);
    struct task *task = o->task;
    struct tasks *t = task->tasks;
    _free_ char *socket = shim_find_listener(o->proc.pid);
    struct err e = ERR_INIT;

    if (!ends_by_itself(o) && !atomic_load(&t->detached)) {
        log_warn("shim %d of task %s does not end: killing it", (int)o->proc.pid, task->key);
        if (bundle_revive(&task->bundle, &e) < 0)
            log_warn("%s", e.msg);
        kill_children(o);
        proc_kill(&o->proc, SIGKILL);
        proc_wait_end(&o->proc, KILL_TIMEOUT_MS);
        shim_socket_remove_dead(socket);
        tasks_set_state(t, task, TASK_LOST);
        task_cleanup_start(task);
    } else {
        shim_socket_remove_dead(socket);
        tasks_remove(t, task);
        loop_run(t->loop, (void (*)(void *))task_unpark, task);
    }
    orphan_free(o);
}

/* One that serves a task whose bundle is there: its own was that of another of its containers. */
static bool is_claimed(struct tasks *t, pid_t pid)
{
    _free_ char *path = shim_find_listener(pid);
    _free_ char *address = path ? str_printf("unix://%s", path) : NULL;

    if (!address)
        return false;
    for (char **k = t->knocked_at; k && *k; k++)
        if (str_eq(*k, address))
            return true;
    return map_get(&t->shims, address);
}

static int orphan_init(struct tasks *t, const struct lost_shim *shim, struct task *task)
{
    struct err e = ERR_INIT;

    task->is_linux = str_eq(shim->runtime, BUNDLE_LINUX);
    task->bundle.ns = strdup(shim->ns);
    task->bundle.id = strdup(shim->id);
    task->bundle.path =
        str_printf("%s/%s/%s/%s", t->options.state, shim->runtime, shim->ns, shim->id);
    task->bundle.work_path =
        str_printf("%s/%s/%s/%s", t->options.root, shim->runtime, shim->ns, shim->id);
    task->binary.path = strdup(t->options.own_shim);
    task->binary.is_ours = true;
    task->state = TASK_RECOVERING;
    if (!task->bundle.ns || !task->bundle.id || !task->bundle.path || !task->bundle.work_path ||
        !task->binary.path)
        return -ENOMEM;
    /* A task of that name was found by its bundle: this one is older, and nobody's to call. */
    if (tasks_add(t, task, &e) < 0)
        log_debug("orphan of task %s: %s", task->key, e.msg);
    return 0;
}

static void take_lost(struct tasks *t, struct lost_shim *shim)
{
    struct orphan *o = NULL;
    struct task *task = NULL;

    if (is_claimed(t, shim->proc.pid)) {
        proc_done(&shim->proc);
        return;
    }
    log_warn("shim %d of task %s/%s has no bundle any more: ending it", (int)shim->proc.pid,
             shim->ns, shim->id);
    if (!(o = calloc(1, sizeof(*o))) || !(task = task_new(t, shim->ns, shim->id)) ||
        orphan_init(t, shim, task) < 0) {
        log_error("end shim of task %s/%s: out of memory", shim->ns, shim->id);
        task_unref(task);
        free(o);
        proc_done(&shim->proc);
        return;
    }
    if (exchange_await_end(t->exchange, shim->ns, shim->id) < 0)
        log_warn("the end of task %s will not be kept: out of memory", task->key);
    o->task = task;
    o->proc = shim->proc;
    if (workq_submit(t->pool, &o->job, end_run) < 0) {
        log_error("no thread to end the shim of task %s", task->key);
        tasks_remove(t, task);
        orphan_free(o);
    }
}

struct find {
    struct tasks *tasks;
    struct lost_shim *shim;
};

static void found_run(void *arg)
{
    const struct find *find = arg;

    take_lost(find->tasks, find->shim);
}

static void found_lost(void *userdata, struct lost_shim *shim)
{
    struct tasks *t = userdata;
    struct find find = {t, shim};

    loop_run(t->loop, found_run, &find);
}

static bool is_old_socket(int dir_fd, const char *name)
{
    struct timespec now = clock_realtime();
    struct stat st;

    return strlen(name) == SOCKET_NAME_LEN &&
           fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(st.st_mode) &&
           st.st_uid == geteuid() && st.st_mtim.tv_sec + SOCKET_AGE_S < now.tv_sec;
}

/* By a shim that we are connected to, which a second connection would only wake up. */
static bool is_served(struct tasks *t, const char *path)
{
    _free_ char *address = str_printf("unix://%s", path);

    return !address || map_get(&t->shims, address);
}

/* Whoever made them is dead: no daemon may ever come back that knows their names, which are
 * digests. */
static void sweep_sockets(struct tasks *t)
{
    const char *place = t->options.host.socket_dir;
    DIR *dir = opendir(place);

    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        _free_ char *path = NULL;
        if (is_old_socket(dirfd(dir), entry->d_name) && (path = fs_join(place, entry->d_name)) &&
            !is_served(t, path))
            shim_socket_remove_dead(path);
    }
    closedir(dir);
}

static void search_done(void *arg)
{
    struct tasks *t = arg;

    sweep_sockets(t);
    strv_free(TAKE(t->knocked_at));
    pthread_mutex_lock(&t->lock);
    t->is_searching = false;
    pthread_cond_broadcast(&t->searched);
    pthread_mutex_unlock(&t->lock);
}

static void search_run(struct workq_job *job)
{
    struct tasks *t = container_of(job, struct tasks, search);
    _free_ char *state = realpath(t->options.state, NULL);
    int r = state ? shim_find_lost(t->options.host.grpc_address, state, found_lost, t) : -errno;

    if (r < 0)
        log_warn("look for shims without a bundle: %s", err_strerror(r));
    loop_run(t->loop, search_done, t);
}

void tasks_expect_orphans(struct tasks *t)
{
    pthread_mutex_lock(&t->lock);
    t->is_searching = true;
    pthread_mutex_unlock(&t->lock);
}

void tasks_find_orphans(struct tasks *t)
{
    int r = workq_submit(t->pool, &t->search, search_run);
    if (r >= 0)
        return;
    /* A daemon that ends so soon has no more to say about it. */
    if (r != -ESHUTDOWN)
        log_error("no thread to look for shims without a bundle: it is done at the next start");
    search_done(t);
}

void tasks_wait_for_orphans(struct tasks *t)
{
    pthread_mutex_lock(&t->lock);
    while (t->is_searching)
        pthread_cond_wait(&t->searched, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

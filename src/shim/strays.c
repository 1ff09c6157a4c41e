/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/strays.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/orphans.h"
#include "base/str.h"
#include "oci/config.h"

#define AGAIN_MS 10
#define ROUNDS 200
#define CHILDREN_MAX (1u << 20)
/* Of generations below a stray. */
#define DEPTH_MAX 16

struct search {
    const struct container *container;
    struct cgroup group; /* unknown: the configuration names none that we understand */
    unsigned found;
};

/* As proc(5) lists them, pids with a space behind each. NULL: the thread is gone. */
static char *read_children(pid_t pid, const char *thread)
{
    _free_ char *path = str_printf("/proc/%d/task/%s/children", (int)pid, thread);
    char *text = NULL;
    size_t n;

    return path && fs_read_file(AT_FDCWD, path, CHILDREN_MAX, &text, &n) >= 0 ? text : NULL;
}

typedef void (*child_fn)(struct search *search, pid_t pid, int depth);

/* Of all threads of pid: a child belongs to the one that started it. */
static void for_each_child(struct search *search, pid_t pid, int depth, child_fn fn)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return;
    for (const struct dirent *entry; (entry = readdir(tasks));) {
        _free_ char *children = entry->d_name[0] == '.' ? NULL : read_children(pid, entry->d_name);
        char *end = children;
        for (long child; end && (child = strtol(end, &end, 10)) > 1;)
            fn(search, (pid_t)child, depth);
    }
    closedir(tasks);
}

static bool has_ended(const struct proc *p)
{
    return proc_wait_end(p, 0) != 0;
}

static void kill_tree(struct search *search, pid_t pid, int depth)
{
    _cleanup_(proc_done) struct proc p = PROC_NULL;

    if (proc_open(pid, &p) < 0 || has_ended(&p))
        return;
    search->found++;
    /* Its children are looked up while they are still its own. */
    if (depth < DEPTH_MAX)
        for_each_child(search, pid, depth + 1, kill_tree);
    proc_kill(&p, SIGKILL);
}

static bool works_in(pid_t pid, const char *bundle)
{
    char cwd[PATH_MAX];

    if (!proc_read_link(pid, "cwd", cwd, sizeof(cwd)))
        return false;
    const char *rest = str_after_prefix(cwd, bundle);
    return rest && (*rest == '\0' || *rest == '/');
}

static void look_at(struct search *search, pid_t pid, int depth)
{
    const struct container *c = search->container;
    _cleanup_(proc_done) struct proc p = PROC_NULL;

    if (reaper_knows(c->shim->reaper, pid))
        return;
    /* The pidfd first: it is the process that is looked at, and a child of ours that we do not reap
     * meanwhile. */
    if (proc_open(pid, &p) < 0 || has_ended(&p))
        return;
    if (works_in(pid, c->bundle) || cgroup_has_process(&search->group, pid))
        kill_tree(search, pid, depth);
}

static unsigned kill_strays(const struct container *c)
{
    _cleanup_(oci_config_done) struct oci_config config = {};
    struct search search = {.container = c};

    if (oci_config_load(c->bundle, &config, NULL) >= 0)
        cgroup_init_path(&search.group, config.cgroups_path);
    for_each_child(&search, getpid(), 0, look_at);
    if (search.found > 0) {
        /* A runtime that was killed while it held its container still has left it frozen. */
        cgroup_let_end(&search.group);
        cgroup_remove(&search.group);
    }
    cgroup_done(&search.group);
    return search.found;
}

static void on_again(struct event_timer *timer);

static void look_again(struct op *op)
{
    struct container *c = op->process->container;
    unsigned found = kill_strays(c);

    if (found > 0 && op->tries++ < ROUNDS) {
        event_timer_arm(c->shim->loop, &op->timer, AGAIN_MS, on_again);
        return;
    }
    if (found > 0)
        log_warn("container %s: %u processes that %s has left do not end", c->id, found,
                 runtime_name(&c->runtime));
    op->launched(op);
}

static void on_again(struct event_timer *timer)
{
    look_again(container_of(timer, struct op, timer));
}

void strays_end(struct op *op, op_fn fn)
{
    op->launched = fn;
    op->tries = 0;
    look_again(op);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The end of everything in a control group, and of the group. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "cgroup/cgroup_file.h"

#define END_PAUSE_US 10000

/* Whether pid is in dir or below, going by what its /proc entry says now. */
static bool is_member(const struct cgroup *c, const char *controller, const char *dir, pid_t pid)
{
    _cleanup_(cgroup_done) struct cgroup of_pid = {};

    if (cgroup_init(&of_pid, pid) < 0)
        return false;
    of_pid.root = c->root;
    of_pid.is_unified = c->is_unified;
    _free_ char *now = cgroup_dir(&of_pid, controller);
    const char *rest = now ? str_after_prefix(now, dir) : NULL;
    return rest && (*rest == '\0' || *rest == '/');
}

bool cgroup_has_process(const struct cgroup *c, pid_t pid)
{
    static const char *const controllers[] = {NULL,      "pids",   "memory", "devices",     "cpu",
                                              "freezer", "cpuset", "blkio",  "name=systemd"};

    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
        _free_ char *dir = cgroup_dir(c, controllers[i]);
        if (dir && is_member(c, controllers[i], dir, pid))
            return true;
    }
    return false;
}

static bool lists_us(const char *procs)
{
    for (const char *line = procs; *line; line += strspn(line, "\n")) {
        size_t len = strcspn(line, "\n");
        if ((pid_t)strtol(line, NULL, 10) == getpid())
            return true;
        line += len;
    }
    return false;
}

/* Kills what cgroup.procs lists. A number that was reused meanwhile is not a member any more: the
 * pidfd is opened first and membership looked up after it. */
static int kill_listed(const struct cgroup *c, const char *controller, const char *dir)
{
    _free_ char *path = fs_join(dir, "cgroup.procs");
    _free_ char *procs = NULL;
    size_t n;
    int found = 0;

    if (!path)
        return -ENOMEM;
    int r = fs_read_file(AT_FDCWD, path, CGROUP_PROCS_MAX, &procs, &n);
    if (r == -ENOENT || r == -ENODEV)
        return 0;
    if (r < 0)
        return r;
    if (lists_us(procs))
        return -EPERM;
    for (const char *line = procs; *line;) {
        _cleanup_(proc_done) struct proc p = PROC_NULL;
        pid_t pid = (pid_t)strtol(line, NULL, 10);
        if (pid > 0) {
            found++;
            if (proc_open(pid, &p) == 0 && is_member(c, controller, dir, pid))
                proc_kill(&p, SIGKILL);
        }
        line += strcspn(line, "\n");
        line += strspn(line, "\n");
    }
    return found;
}

/* Depth first, with the groups a container made below its own. */
static int kill_below(const struct cgroup *c, const char *controller, const char *dir, int depth)
{
    int found = kill_listed(c, controller, dir);
    if (found < 0 || depth >= CGROUP_DEPTH_MAX)
        return found;

    DIR *d = opendir(dir);
    if (!d)
        return found;
    for (const struct dirent *entry; found >= 0 && (entry = readdir(d));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        _free_ char *child = fs_join(dir, entry->d_name);
        int r = child ? kill_below(c, controller, child, depth + 1) : -ENOMEM;
        found = r < 0 ? r : found + r;
    }
    closedir(d);
    return found;
}

static int kill_all(const struct cgroup *c, bool freeze)
{
    static const char *const controllers[] = {"pids",    "memory", "devices", "cpu",
                                              "freezer", "cpuset", "blkio"};
    int found = 0;

    if (c->is_unified) {
        _free_ char *dir = cgroup_dir(c, NULL);
        if (!dir)
            return 0;
        found = kill_below(c, NULL, dir, 0);
        if (found > 0)
            cgroup_write(dir, "cgroup.kill", "1"); /* also what was forked meanwhile */
    } else {
        for (size_t i = 0; found == 0 && i < ARRAY_SIZE(controllers); i++) {
            _free_ char *dir = cgroup_dir(c, controllers[i]);
            if (dir && fs_exists(AT_FDCWD, dir)) {
                if (freeze) /* so that it cannot fork away from us */
                    cgroup_freeze_v1(c);
                found = kill_below(c, controllers[i], dir, 0);
            }
        }
    }
    if (found >= 0)
        cgroup_let_end(c);
    else
        cgroup_thaw(c);
    return found;
}

int cgroup_kill(const struct cgroup *c)
{
    return kill_all(c, true);
}

static int remove_below(const char *dir, int depth)
{
    DIR *d = depth < CGROUP_DEPTH_MAX ? opendir(dir) : NULL;

    if (d) {
        for (const struct dirent *entry; (entry = readdir(d));) {
            _free_ char *child = NULL;
            if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
                (child = fs_join(dir, entry->d_name)))
                remove_below(child, depth + 1);
        }
        closedir(d);
    }
    return rmdir(dir);
}

void cgroup_remove(const struct cgroup *c)
{
    if (!c->text)
        return;
    for (const char *line = c->text; *line;) {
        size_t len = strcspn(line, "\n");
        const char *names = memchr(line, ':', len);
        size_t n = names ? strcspn(names + 1, ":,") : 0;
        _free_ char *controller = n > 0 ? strndup(names + 1, n) : NULL;
        _free_ char *dir = cgroup_dir(c, controller);
        if (dir)
            remove_below(dir, 0);
        line += len + (line[len] == '\n');
    }
}

int cgroup_end(const struct cgroup *c, int timeout_ms)
{
    uint64_t deadline = clock_monotonic_ms() + (uint64_t)timeout_ms;
    /* Whoever is killed between freezing and thawing leaves it frozen. The `delete` action has
     * nobody behind it who would come back, so only what does not end otherwise is frozen. */
    int left = kill_all(c, false);

    while (left > 0 && clock_monotonic_ms() < deadline) {
        usleep(END_PAUSE_US);
        left = cgroup_kill(c);
    }
    cgroup_remove(c);
    return left;
}

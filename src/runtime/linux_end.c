/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/linux_end.h"

#include <limits.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/mount.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "oci/config.h"

#define KILL_TIMEOUT_MS 5000
#define END_TIMEOUT_MS 2000
#define OUTPUT_MAX 4096
#define STATUS_KILLED 137

/* The number may be another process's by now; a shim runs in its bundle, which nobody else does. */
static bool runs_in(pid_t pid, const struct bundle *b)
{
    char cwd[PATH_MAX];

    return proc_read_link(pid, "cwd", cwd, sizeof(cwd)) && str_eq(cwd, b->path);
}

void linux_kill_shim(struct shim *shim, struct bundle *b)
{
    struct proc proc = PROC_NULL;
    int r = shim ? shim_kill(shim, KILL_TIMEOUT_MS) : -ESRCH;

    if (r == -ESRCH) {
        pid_t pid = bundle_read_pid(b, "shim.pid");
        /* The pidfd first: what is looked at afterwards is what would be killed. */
        if (pid <= 1 || proc_open(pid, &proc) < 0)
            return;
        r = 0;
        if (runs_in(pid, b) && proc_kill(&proc, SIGKILL) >= 0)
            r = proc_wait_end(&proc, KILL_TIMEOUT_MS) == 1 ? 0 : -ETIMEDOUT;
        proc_done(&proc);
    }
    if (r < 0)
        log_warn("kill shim of task %s/%s: %s", b->ns, b->id, err_strerror(r));
}

static int run_delete(struct bundle *b, const struct linux_runtime *runtime, uint64_t timeout_ms,
                      struct err *e)
{
    _cleanup_(buf_done) struct buf output = BUF_INIT(OUTPUT_MAX);
    _free_ char *path = NULL;
    _free_ char *root = str_printf("%s/%s", runtime->runtime_root, b->ns);
    _free_ char *log = fs_join(b->path, "log.json");
    struct proc_spawn spawn = PROC_SPAWN_INIT;
    int status = 0;

    if (!root || !log)
        return err_oom(e);
    int r = 0;
    if (runtime->runtime[0] != '/')
        r = proc_find_program(runtime->runtime, NULL, &path);
    else if (!(path = strdup(runtime->runtime)))
        r = -ENOMEM;
    if (r < 0)
        return err_errno(e, r, "find OCI runtime %s", runtime->runtime);
    const char *argv[] = {path,   "--root", root,      "--log", log,  "--log-format",
                          "json", "delete", "--force", b->id,   NULL, NULL};
    if (runtime->systemd_cgroup) {
        memmove(&argv[8], &argv[7], 3 * sizeof(argv[0]));
        argv[7] = "--systemd-cgroup";
    }
    spawn.path = path;
    spawn.argv = argv;
    spawn.cwd = b->path;
    r = proc_run(&spawn, NULL, 0, (int)timeout_ms, &output, &status);
    if (r < 0)
        return err_errno(e, r, "run %s delete", path);
    if (status != 0)
        return err_set(e, ERR_UNKNOWN, "%s delete --force %s: %.*s: exit status %d", path, b->id,
                       (int)output.len, output.len ? (const char *)buf_head(&output) : "", status);
    return 0;
}

static int find_group(const struct bundle *b, struct cgroup *ret)
{
    _cleanup_(oci_config_done) struct oci_config config = {0};

    if (cgroup_load(ret, b->path) >= 0)
        return 0;
    return oci_config_load(b->path, &config, NULL) < 0 ? -ENOENT
                                                       : cgroup_init_path(ret, config.cgroups_path);
}

/* A runtime that ends a frozen container waits for it in vain, until it is killed for that. */
static void kill_frozen(const struct bundle *b)
{
    _cleanup_(cgroup_done) struct cgroup group = {0};

    if (find_group(b, &group) >= 0 && cgroup_outlasts_kill(&group))
        cgroup_kill(&group);
}

/* What the OCI runtime knows nothing of, when it was killed itself while it made the container. */
static void kill_rest(const struct bundle *b)
{
    _cleanup_(cgroup_done) struct cgroup group = {0};

    if (find_group(b, &group) < 0)
        return;
    int left = cgroup_end(&group, END_TIMEOUT_MS);
    if (left > 0)
        log_warn("container %s/%s: %d processes do not go", b->ns, b->id, left);
    else if (left < 0)
        log_warn("container %s/%s: its processes cannot be killed: %s", b->ns, b->id,
                 err_strerror(left));
}

static int unmount(const struct bundle *b, struct err *e)
{
    _free_ char *rootfs = fs_join(b->path, "rootfs");
    int r = rootfs ? mount_unmount_all(rootfs, true) : -ENOMEM;

    return r < 0 ? err_errno(e, r, "unmount %s/rootfs", b->path) : 0;
}

int linux_clean_up(struct bundle *b, uint64_t timeout_ms, struct task_exit *ret, struct err *e)
{
    _cleanup_(linux_runtime_done) struct linux_runtime runtime = {0};

    ret->pid = (uint32_t)bundle_read_pid(b, "init.pid");
    ret->status = STATUS_KILLED;
    ret->at = clock_realtime();
    if (linux_bundle_read_runtime(b, &runtime) < 0)
        return err_oom(e);
    kill_frozen(b);
    int r = run_delete(b, &runtime, timeout_ms, e);
    kill_rest(b);
    /* The first failure is the one that is told. */
    return unmount(b, r < 0 ? NULL : e) < 0 || r < 0 ? ERR_RETURN : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/cgroup_warm.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"

/* The kernel's lock stays cheap for about this long after a migration. */
#define WARM_MS 5

/* A line of /proc/self/cgroup is "hierarchy:controllers:path", cgroups(7). Any hierarchy will do:
 * the lock is the kernel's one. */
static int open_procs_of_line(const char *line)
{
    const char *controllers = strchr(line, ':');
    const char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return -EINVAL;

    int len = (int)(path - controllers - 1);
    _free_ char *v1 =
        str_printf("/sys/fs/cgroup/%.*s%s/cgroup.procs", len, controllers + 1, path + 1);
    _free_ char *v2 = str_printf("/sys/fs/cgroup%s/cgroup.procs", path + 1);
    _free_ char *hybrid = str_printf("/sys/fs/cgroup/unified%s/cgroup.procs", path + 1);
    const char *candidates[] = {len ? v1 : v2, len ? NULL : hybrid};
    for (size_t i = 0; i < ARRAY_SIZE(candidates); i++) {
        int fd = candidates[i] ? open(candidates[i], O_WRONLY | O_CLOEXEC) : -1;
        if (fd >= 0)
            return fd;
    }
    return -ENOENT;
}

void cgroup_warm_init(struct cgroup_warm *w, struct workq *pool)
{
    _free_ char *text = NULL;
    size_t len = 0;

    *w = (struct cgroup_warm){.pool = pool, .procs_fd = -EBADF};
    if (fs_read_file(AT_FDCWD, "/proc/self/cgroup", 65536, &text, &len) < 0)
        return;
    char *rest = text;
    for (char *line; w->procs_fd < 0 && (line = strsep(&rest, "\n"));)
        w->procs_fd = open_procs_of_line(line);
    if (w->procs_fd < 0)
        log_debug("no cgroup to warm up: first container after a pause starts later");
}

void cgroup_warm_done(struct cgroup_warm *w)
{
    close_fd(&w->procs_fd);
}

static void warm(struct workq_job *job)
{
    struct cgroup_warm *w = container_of(job, struct cgroup_warm, job);

    if (write(w->procs_fd, "0", 1) < 0)
        log_debug("warm up cgroup migration: %s", err_strerror(errno));
    atomic_store(&w->last_ms, clock_monotonic_ms());
    atomic_store(&w->busy, false);
}

void cgroup_warm_start(struct cgroup_warm *w)
{
    if (w->procs_fd < 0 || clock_monotonic_ms() - atomic_load(&w->last_ms) < WARM_MS)
        return;
    if (atomic_exchange(&w->busy, true))
        return;
    if (workq_submit(w->pool, &w->job, warm) < 0)
        atomic_store(&w->busy, false);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/oom.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "base/fs.h"
#include "base/str.h"
#include "cgroup/stats.h"

#define SECOND_LOOK_MS 100

void oom_done(struct oom *oom)
{
    event_fd_remove(&oom->source);
    event_timer_disarm(&oom->timer);
    close_fd(&oom->fd);
    free(oom->file);
    oom->file = NULL;
}

static bool read_kills(const char *file, uint64_t *ret)
{
    static const struct stats_field field = {"oom_kill", 0};

    return stats_fields("", file, &field, 1, ret);
}

void oom_check(struct oom *oom)
{
    uint64_t n = 0;

    if (!oom->file || !read_kills(oom->file, &n) || n <= oom->n_kills)
        return;
    oom->n_kills = n;
    oom->fn(oom);
}

static void on_timer(struct event_timer *timer)
{
    oom_check(container_of(timer, struct oom, timer));
}

static void on_event(struct event_fd *source, uint32_t events)
{
    struct oom *oom = container_of(source, struct oom, source);
    char drained[1024];

    /* Read from the start, memory.events counts as seen; an eventfd is just emptied. */
    if (pread(oom->fd, drained, sizeof(drained), 0) < 0 && errno == ESPIPE &&
        read(oom->fd, drained, sizeof(uint64_t)) < 0 && errno == EAGAIN)
        return;
    if (!fs_exists(AT_FDCWD, oom->file)) {
        event_fd_remove(source); /* the group's removal wakes us too, again and again */
        return;
    }
    oom_check(oom);
    event_timer_arm(source->loop, &oom->timer, SECOND_LOOK_MS, on_timer);
}

static int watch_v1(struct oom *oom, const char *dir)
{
    _free_ char *control = fs_join(dir, "cgroup.event_control");
    char line[32];

    if (!control)
        return -ENOMEM;
    _close_ int file_fd = neg_errno(open(oom->file, O_RDONLY | O_CLOEXEC));
    if (file_fd < 0)
        return file_fd;
    _close_ int control_fd = neg_errno(open(control, O_WRONLY | O_CLOEXEC));
    if (control_fd < 0)
        return control_fd;
    oom->fd = neg_errno(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (oom->fd < 0)
        return oom->fd;
    int n = snprintf(line, sizeof(line), "%d %d", oom->fd, file_fd);
    return fs_write_all(control_fd, line, (size_t)n);
}

int oom_watch(struct oom *oom, struct event_loop *loop, const struct cgroup *c, oom_fn fn)
{
    _free_ char *dir = cgroup_dir(c, c->is_unified ? NULL : "memory");

    *oom = (struct oom)OOM_INIT;
    oom->fn = fn;
    if (!dir)
        return 0;
    oom->file = fs_join(dir, c->is_unified ? "memory.events" : "memory.oom_control");
    if (!oom->file)
        return -ENOMEM;
    int r = 0;
    if (!fs_exists(AT_FDCWD, oom->file)) {
        oom_done(oom);
        return 0;
    }
    if (c->is_unified)
        r = oom->fd = neg_errno(open(oom->file, O_RDONLY | O_CLOEXEC));
    else
        r = watch_v1(oom, dir);
    if (r >= 0 && !read_kills(oom->file, &oom->n_kills))
        r = -EBADMSG;
    if (r >= 0)
        r = event_fd_add(loop, &oom->source, oom->fd, c->is_unified ? EPOLLPRI : EPOLLIN, on_event);
    if (r < 0) { /* the file is kept: it can be looked at all the same */
        event_fd_remove(&oom->source);
        close_fd(&oom->fd);
    }
    return MIN_OF(r, 0);
}

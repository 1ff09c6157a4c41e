/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mount.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"
#include "base/vchild.h"

#define DATA_SHOWN_MAX 1024

/* What a bind mount takes in a second step only. */
#define MS_ATIME (MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME)
#define MS_PER_MOUNT (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_ATIME)

static void mount_done(struct mount *m)
{
    free(m->type);
    free(m->source);
    free(m->target);
    strv_free(m->options);
}

void mount_list_done(struct mount_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        mount_done(&l->mounts[i]);
    free(l->mounts);
    *l = (struct mount_list){.mounts = NULL};
}

static int dup_or_null(const char *s, char **ret)
{
    if (!s)
        return 0;
    *ret = strdup(s);
    return *ret ? 0 : -ENOMEM;
}

int mount_list_add(struct mount_list *l, const char *type, const char *source, const char *target,
                   char *const *options)
{
    struct mount m = {.type = NULL};

    if (l->n >= MOUNT_LIST_MAX)
        return -ENOBUFS;
    struct mount *grown = reallocarray(l->mounts, l->n + 1, sizeof(m));
    if (!grown)
        return -ENOMEM;
    l->mounts = grown;
    if (options)
        m.options = strv_dup(options);
    if (dup_or_null(type, &m.type) < 0 || dup_or_null(source, &m.source) < 0 ||
        dup_or_null(target, &m.target) < 0 || (options && !m.options)) {
        mount_done(&m);
        return -ENOMEM;
    }
    l->mounts[l->n++] = m;
    return 0;
}

struct mount_step {
    const char *type;
    const char *source;
    const char *target;
    const char *data;
    unsigned long flags;
    const char *dir; /* to mount from */
    int result;
};

_vchild_ static int mount_from_dir(void *arg)
{
    struct mount_step *s = arg;

    if (chdir(s->dir) < 0)
        s->result = -errno;
    else
        s->result = neg_errno(mount(s->source, s->target, s->type, s->flags, s->data));
    return 0; /* clone(2) of libc ends the child with it */
}

/* The working directory belongs to the whole process, so a child that shares all but that changes
 * it. It ends without SIGCHLD and only a wait that names it (__WCLONE) sees it. */
static int mount_in_child(struct mount_step *s)
{
    s->result = -ECHILD;
    pid_t pid = vchild_start(mount_from_dir, s, 0, NULL);
    if (pid > 0)
        while (waitpid(pid, NULL, __WCLONE) < 0 && errno == EINTR)
            ;
    return pid < 0 ? pid : s->result;
}

static int mount_long_overlay(struct mount_step *s)
{
    _free_ char *dir = NULL;
    _free_ char *data = NULL;
    char target[32];

    int r = mount_shorten_overlay(s->data, &dir, &data);
    if (r < 0)
        return r;
    if (strlen(data) > MOUNT_DATA_MAX)
        return -E2BIG;
    /* The target may be relative to the directory we are in now. */
    _close_ int target_fd = neg_errno(open(s->target, O_PATH | O_CLOEXEC));
    if (target_fd < 0)
        return target_fd;
    snprintf(target, sizeof(target), "/proc/self/fd/%d", target_fd);

    struct mount_step from_dir = *s;
    from_dir.dir = dir;
    from_dir.data = data;
    from_dir.target = target;
    return mount_in_child(&from_dir);
}

/* A bind mount ignores flags; they are set on the new mount, which keeps those it has (in a user
 * namespace they may not be taken away). */
static int remount_bind(const char *target, unsigned long flags)
{
    struct statvfs st;

    if (statvfs(target, &st) < 0)
        return -errno;
    unsigned long keep = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (!(flags & MS_ATIME))
        keep |= MS_NOATIME | MS_NODIRATIME | MS_RELATIME; /* of equal value as ST_*, statvfs(3) */
    flags |= st.f_flag & keep;
    return neg_errno(mount("", target, "", (flags & ~(unsigned long)MS_REC) | MS_REMOUNT, NULL));
}

static int mount_steps(struct mount_step *s, unsigned long propagation)
{
    bool only_propagation = s->flags == 0 && propagation && str_empty(s->type);
    int r = 0;

    if (!only_propagation) {
        if (s->data && strlen(s->data) > MOUNT_DATA_MAX)
            r = str_eq(s->type, "overlay") ? mount_long_overlay(s) : -E2BIG;
        else
            r = neg_errno(mount(s->source, s->target, s->type, s->flags, s->data));
    }
    if (r < 0)
        return r;
    if (propagation)
        r = neg_errno(mount("", s->target, "", propagation, NULL));
    if (r == 0 && (s->flags & MS_BIND) && !(s->flags & MS_REMOUNT) && (s->flags & MS_PER_MOUNT))
        r = remount_bind(s->target, s->flags);
    if (r < 0 && !only_propagation && !(s->flags & MS_REMOUNT))
        umount2(s->target, MNT_DETACH);
    return r;
}

/* What mount(2) says in one errno, said in words where the reason can be seen from outside. */
static const char *mount_hint(const struct mount_step *s, int r)
{
    if (r == -ENODEV)
        return " (the kernel has no such filesystem type)";
    if (r == -E2BIG)
        return " (the options do not fit in a page)";
    if (r == -ENOENT && access(s->target, F_OK) < 0)
        return " (the target does not exist)";
    if (r == -ENOENT && (s->flags & MS_BIND) && access(s->source, F_OK) < 0)
        return " (the source does not exist)";
    if (r == -ENOENT && str_eq(s->type, "overlay"))
        return " (a directory of the options does not exist)";
    if (r == -EPERM && geteuid() != 0)
        return " (mounting needs root)";
    return "";
}

static bool has_option(char *const *options, const char *name, size_t n)
{
    for (; options && *options; options++)
        if (strncmp(*options, name, n) == 0)
            return true;
    return false;
}

/* m->target below target, without leaving it. */
static int open_target(const struct mount *m, const char *target)
{
    _close_ int fd = neg_errno(open(target, O_PATH | O_CLOEXEC));
    if (fd < 0 || str_empty(m->target))
        return TAKE_FD(fd);
    return fs_open_beneath(fd, m->target, O_PATH, 0);
}

int mount_do(const struct mount *m, const char *target, struct err *e)
{
    static const char unknown[] = "X-containerd.";
    _free_ char *data = NULL;
    _close_ int target_fd = -EBADF;
    _close_ int loop_fd = -EBADF;
    char target_path[32], loop_path[32];
    unsigned long flags, propagation;

    if (has_option(m->options, unknown, sizeof(unknown) - 1))
        return err_set(
            e, ERR_INVALID_ARGUMENT,
            "mount source: \"%s\", target: \"%s\": an option that begins with %s was left "
            "for the kernel",
            str_or_empty(m->source), target, unknown);
    int r = mount_parse_options(m->options, &flags, &propagation, &data);
    if (r < 0)
        return err_errno(e, r, "read the options of the mount on \"%s\"", target);

    struct mount_step s = {.type = str_or_empty(m->type),
                           .source = str_or_empty(m->source),
                           .target = target,
                           .data = data,
                           .flags = flags};
    if (!str_empty(m->target)) {
        target_fd = open_target(m, target);
        if (target_fd < 0)
            return err_errno(e, target_fd, "open mount target \"%s\" below \"%s\"", m->target,
                             target);
        snprintf(target_path, sizeof(target_path), "/proc/self/fd/%d", target_fd);
        s.target = target_path;
    }
    if (has_option(m->options, "loop", sizeof("loop"))) {
        loop_fd = mount_loop_attach(s.source, flags & MS_RDONLY, loop_path, sizeof(loop_path));
        if (loop_fd < 0)
            return err_errno(e, loop_fd, "set up a loop device for \"%s\"", s.source);
        s.source = loop_path;
    }

    r = mount_steps(&s, propagation);
    if (r < 0)
        return err_errno(e, r,
                         "mount source: \"%s\", target: \"%s\", fstype: %s, flags: %lu, data: "
                         "\"%.*s%s\", err%s",
                         s.source, target, s.type, flags, DATA_SHOWN_MAX, str_or_empty(data),
                         data && strlen(data) > DATA_SHOWN_MAX ? "..." : "", mount_hint(&s, r));
    return 0;
}

int mount_all(const struct mount_list *l, const char *target, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        int r = mount_do(&l->mounts[i], target, e);
        if (r == 0)
            continue;
        while (i-- > 0) {
            /* An fd opened now is on the uppermost mount there, which is the last one made. */
            char path[32];
            _close_ int fd = open_target(&l->mounts[i], target);
            if (fd < 0)
                continue;
            snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
            umount2(path, MNT_DETACH);
        }
        return r;
    }
    return 0;
}

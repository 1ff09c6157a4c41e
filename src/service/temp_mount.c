/* SPDX-License-Identifier: Apache-2.0 */
#include "service/temp_mount.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "store/mount_space.h"

#define TMP_MOUNTS "tmpmounts"
#define POINT_PREFIX "mount-"
#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_CLOEXEC)

struct job {
    const struct mount_list *lists;
    size_t n;
    char *points[TEMP_MOUNTS_MAX];
    int fds[TEMP_MOUNTS_MAX];
    temp_mount_fn fn;
    void *userdata;
};

static int make_point(const char *dir, char **ret, struct err *e)
{
    _free_ char *point = str_printf("%s/" POINT_PREFIX "XXXXXX", dir);

    if (!point)
        return err_oom(e);
    if (!mkdtemp(point))
        return err_errno(e, -errno, "make a mount point in %s", dir);
    *ret = TAKE(point);
    return 0;
}

static void remove_points(struct job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        /* Never recursively: see what is mounted there. */
        if (job->points[i] && rmdir(job->points[i]) < 0)
            log_warn("remove %s: %s", job->points[i], err_strerror(errno));
        free(job->points[i]);
    }
}

/* In the mount namespace of its own. */
static int run_mounted(void *userdata, struct err *e)
{
    struct job *job = userdata;
    int r = 0;

    for (size_t i = 0; i < job->n && r >= 0; i++) {
        r = mount_all(&job->lists[i], job->points[i], e);
        if (r < 0) {
            r = err_wrap(e, "failed to mount %s", job->points[i]);
            break;
        }
        job->fds[i] = neg_errno(open(job->points[i], OPEN_DIR));
        if (job->fds[i] < 0)
            r = err_errno(e, job->fds[i], "open %s", job->points[i]);
    }
    if (r >= 0)
        r = job->fn(job->userdata, job->fds, e);
    for (size_t i = 0; i < job->n; i++)
        close_fd(&job->fds[i]);
    return r;
}

int temp_mount_run(const char *root, const struct mount_list *lists, size_t n, temp_mount_fn fn,
                   void *userdata, struct err *e)
{
    struct job job = {.lists = lists, .n = n, .fn = fn, .userdata = userdata};
    _free_ char *dir = fs_join(root, TMP_MOUNTS);
    _close_ int dir_fd = -EBADF;
    int r;

    if (!dir)
        return err_oom(e);
    for (size_t i = 0; i < n; i++)
        job.fds[i] = -EBADF;
    r = fs_open_private_dir(dir, 0700, &dir_fd);
    if (r < 0)
        return err_errno(e, r, "open %s", dir);
    for (size_t i = 0; i < n && r >= 0; i++)
        r = make_point(dir, &job.points[i], e);
    if (r >= 0)
        r = mount_space_run(run_mounted, &job, e);
    remove_points(&job);
    return r;
}

/* What an overlay that is only read does without, or must not have twice. */
static bool is_for_writing(const char *option)
{
    static const char *const prefixes[] = {"upperdir=", "workdir=", "uidmap=", "gidmap="};

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
        if (str_after_prefix(option, prefixes[i]))
            return true;
    return str_eq(option, "volatile") || str_eq(option, "fsync=volatile");
}

/* A ':' separates lower directories, but is nothing special in the upper one. */
static char *escape_colons(const char *path)
{
    char *out = malloc(2 * strlen(path) + 1);
    char *at = out;

    if (!out)
        return NULL;
    for (; *path; path++) {
        if (*path == ':')
            *at++ = '\\';
        *at++ = *path;
    }
    *at = 0;
    return out;
}

static int add_option(char ***options, const char *option, const char *upper)
{
    const char *lower = str_after_prefix(option, "lowerdir=");
    _free_ char *text = NULL;

    if (!lower || !upper)
        return strv_push(options, option);
    text = str_printf("lowerdir=%s:%s", upper, lower);
    return text ? strv_push(options, text) : -ENOMEM;
}

static int make_overlay_read_only(struct mount *m)
{
    _cleanup_(strv_freep) char **options = NULL;
    _free_ char *upper = NULL;
    int r = 0;

    for (char **o = m->options; o && *o && !upper; o++) {
        const char *path = str_after_prefix(*o, "upperdir=");
        if (path && !(upper = escape_colons(path)))
            return -ENOMEM;
    }
    for (char **o = m->options; o && *o && r >= 0; o++)
        r = is_for_writing(*o) ? 0 : add_option(&options, *o, upper);
    if (r < 0)
        return r;
    strv_free(m->options);
    m->options = TAKE(options);
    return 0;
}

static int make_other_read_only(struct mount *m)
{
    _cleanup_(strv_freep) char **options = NULL;
    int r = 0;

    for (char **o = m->options; o && *o && r >= 0; o++)
        r = str_eq(*o, "rw") || str_eq(*o, "ro") ? 0 : strv_push(&options, *o);
    if (r >= 0)
        r = strv_push(&options, "ro");
    if (r < 0)
        return r;
    strv_free(m->options);
    m->options = TAKE(options);
    return 0;
}

int temp_mount_make_read_only(struct mount_list *l)
{
    int r = 0;

    for (size_t i = 0; i < l->n && r >= 0; i++)
        r = str_eq(l->mounts[i].type, "overlay") ? make_overlay_read_only(&l->mounts[i])
                                                 : make_other_read_only(&l->mounts[i]);
    return r;
}

void temp_mount_remove_old(const char *root)
{
    _free_ char *path = fs_join(root, TMP_MOUNTS);
    struct dirent *entry;
    DIR *dir;

    if (!path || fs_open_dir(AT_FDCWD, path, &dir) < 0)
        return;
    while ((entry = readdir(dir))) {
        if (str_after_prefix(entry->d_name, POINT_PREFIX))
            unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What is frozen, and how it goes on: freezer.state of v1 (freezer-subsystem in the kernel's
 * documentation of cgroup v1), cgroup.freeze of v2. */
#include <dirent.h>
#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "cgroup/cgroup_file.h"
#include "cgroup/stats.h"

void cgroup_write(const char *dir, const char *name, const char *text)
{
    _free_ char *path = dir ? fs_join(dir, name) : NULL;
    _close_ int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -EBADF;

    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        return; /* the callers look at the outcome */
}

void cgroup_freeze_v1(const struct cgroup *c)
{
    _free_ char *v1 = cgroup_dir(c, "freezer");

    cgroup_write(v1, "freezer.state", "FROZEN");
}

void cgroup_thaw(const struct cgroup *c)
{
    _free_ char *v2 = cgroup_dir(c, NULL);
    _free_ char *v1 = cgroup_dir(c, "freezer");

    cgroup_write(v2, "cgroup.freeze", "0");
    cgroup_write(v1, "freezer.state", "THAWED");
}

bool cgroup_is_frozen(const struct cgroup *c)
{
    _free_ char *v2 = cgroup_dir(c, NULL);
    _free_ char *v1 = cgroup_dir(c, "freezer");
    _free_ char *state = stats_read(v1 ? v1 : v2, v1 ? "freezer.state" : "cgroup.freeze");

    return !state || (!str_after_prefix(state, "THAWED") && !str_after_prefix(state, "0"));
}

static bool is_frozen_below(const char *dir, int depth)
{
    _free_ char *state = stats_read(dir, "freezer.state");
    bool is_frozen = state && !str_after_prefix(state, "THAWED");
    DIR *d = !is_frozen && depth < CGROUP_DEPTH_MAX ? opendir(dir) : NULL;

    for (const struct dirent *entry; d && !is_frozen && (entry = readdir(d));) {
        _free_ char *child = NULL;
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
            (child = fs_join(dir, entry->d_name)))
            is_frozen = is_frozen_below(child, depth + 1);
    }
    if (d)
        closedir(d);
    return is_frozen;
}

bool cgroup_outlasts_kill(const struct cgroup *c)
{
    _free_ char *v1 = cgroup_dir(c, "freezer");

    return v1 && is_frozen_below(v1, 0);
}

static bool has_flag(const char *dir, const char *name)
{
    _free_ char *text = stats_read(dir, name);

    return text && text[0] == '1';
}

/* The nearest group above dir that is not frozen; dir is cut to it. False: there is none below
 * root. */
static bool cut_to_thawed(char *dir, const char *root)
{
    size_t root_len = strlen(root);

    for (;;) {
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root_len)
            return false;
        *slash = '\0';
        /* The root of the hierarchy has neither file and is never frozen. */
        if (!has_flag(dir, "freezer.parent_freezing") && !has_flag(dir, "freezer.self_freezing"))
            return true;
    }
}

static void move_listed(const char *from, const char *to)
{
    _free_ char *path = fs_join(from, "cgroup.procs");
    _free_ char *procs = NULL;
    size_t n;

    /* What is frozen cannot end, so none of these numbers passes on to another process. */
    if (!path || fs_read_file(AT_FDCWD, path, CGROUP_PROCS_MAX, &procs, &n) < 0)
        return;
    for (char *line = procs, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = '\0';
        cgroup_write(to, "cgroup.procs", line);
    }
}

static void thaw_below(const char *dir, const char *to, int depth)
{
    cgroup_write(dir, "freezer.state", "THAWED");
    if (to)
        move_listed(dir, to);
    DIR *d = depth < CGROUP_DEPTH_MAX ? opendir(dir) : NULL;
    for (const struct dirent *entry; d && (entry = readdir(d));) {
        _free_ char *child = NULL;
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
            (child = fs_join(dir, entry->d_name)))
            thaw_below(child, to, depth + 1);
    }
    if (d)
        closedir(d);
}

void cgroup_let_end(const struct cgroup *c)
{
    _free_ char *dir = cgroup_dir(c, "freezer");
    _free_ char *root = dir ? fs_join(c->root, "freezer") : NULL;
    _free_ char *above = dir ? strdup(dir) : NULL;

    cgroup_thaw(c);
    if (!root || !above)
        return;
    bool must_move = has_flag(dir, "freezer.parent_freezing") && cut_to_thawed(above, root);
    thaw_below(dir, must_move ? above : NULL, 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cgroup/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/vfs.h>

#include "base/fs.h"
#include "base/str.h"
#include "cgroup/stats.h"

#define TEXT_MAX 16384

static bool is_unified(const char *root)
{
    struct statfs fs;

    return statfs(root, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

int cgroup_init_text(struct cgroup *c, const char *text, const char *root, bool unified)
{
    char *copy = strdup(text);

    if (!copy)
        return -ENOMEM;
    *c = (struct cgroup){.text = copy, .root = root ? root : CGROUP_ROOT, .is_unified = unified};
    return 0;
}

int cgroup_init(struct cgroup *c, pid_t pid)
{
    _free_ char *text = NULL;
    char path[40];
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    int r = fs_read_file(AT_FDCWD, path, TEXT_MAX, &text, &n);
    if (r < 0)
        return r;
    if (n == 0)
        return -ESRCH;
    return cgroup_init_text(c, text, NULL, is_unified(CGROUP_ROOT));
}

int cgroup_init_path(struct cgroup *c, const char *path)
{
    _cleanup_(cgroup_done) struct cgroup own = {};
    _cleanup_(buf_done) struct buf text = BUF_INIT(65536);

    if (!path || path[0] != '/')
        return -EINVAL;
    int r = cgroup_init(&own, getpid());
    if (r < 0)
        return r;
    for (const char *line = own.text; *line; line += strspn(line, "\n")) {
        size_t len = strcspn(line, "\n");
        const char *names = memchr(line, ':', len);
        const char *at = names ? memchr(names + 1, ':', len - (size_t)(names + 1 - line)) : NULL;
        if (at)
            buf_printf(&text, "%.*s:%s\n", (int)(at - line), line, path);
        line += len;
    }
    _free_ char *lines = buf_take_str(&text);
    return lines ? cgroup_init_text(c, lines, NULL, own.is_unified) : -ENOMEM;
}

void cgroup_done(struct cgroup *c)
{
    free(c->text);
    *c = (struct cgroup){};
}

int cgroup_save(const struct cgroup *c, const char *bundle)
{
    _free_ char *path = fs_join(bundle, "cgroup");

    if (!path)
        return -ENOMEM;
    return fs_write_file_atomic(AT_FDCWD, path, c->text, strlen(c->text), 0600, false);
}

int cgroup_load(struct cgroup *c, const char *bundle)
{
    _free_ char *path = fs_join(bundle, "cgroup");
    _free_ char *text = NULL;
    size_t n;

    if (!path)
        return -ENOMEM;
    int r = fs_read_file(AT_FDCWD, path, TEXT_MAX, &text, &n);
    return r < 0 ? r : cgroup_init_text(c, text, NULL, is_unified(CGROUP_ROOT));
}

/* Whether the comma-separated list of n bytes has the word. */
static bool list_has(const char *list, size_t n, const char *word)
{
    size_t len = strlen(word);

    for (size_t at = 0; at <= n;) {
        const char *comma = memchr(list + at, ',', n - at);
        size_t item = comma ? (size_t)(comma - list) - at : n - at;
        if (item == len && memcmp(list + at, word, len) == 0)
            return true;
        at += item + 1;
    }
    return false;
}

/* The path on the line "N:<controllers>:<path>". */
static const char *find_path(const char *text, const char *controller, size_t *ret_len)
{
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        const char *names = memchr(line, ':', len);
        const char *path = names ? memchr(names + 1, ':', len - (size_t)(names + 1 - line)) : NULL;
        if (path) {
            size_t names_len = (size_t)(path - names - 1);
            bool matches = controller ? list_has(names + 1, names_len, controller)
                                      : names_len == 0 && line[0] == '0';
            if (matches) {
                *ret_len = len - (size_t)(path + 1 - line);
                return path + 1;
            }
        }
        line += len + (line[len] == '\n');
    }
    return NULL;
}

char *cgroup_dir(const struct cgroup *c, const char *controller)
{
    size_t len = 0;
    const char *path = c->text ? find_path(c->text, controller, &len) : NULL;

    /* Neither the root nor anything outside of the caller's cgroup namespace ("/../x"). */
    if (!path || len < 2 || path[0] != '/' || memmem(path, len, "/..", 3))
        return NULL;
    if (!controller)
        return str_printf("%s%s%.*s", c->root, c->is_unified ? "" : "/unified", (int)len, path);
    /* A named hierarchy is mounted under its name alone. */
    const char *name = str_after_prefix(controller, "name=");
    return str_printf("%s/%s%.*s", c->root, name ? name : controller, (int)len, path);
}

bool cgroup_exists(const struct cgroup *c)
{
    static const char *const controllers[] = {"memory", "cpu", "cpuacct", "pids", "devices"};

    if (c->is_unified) {
        _free_ char *dir = cgroup_dir(c, NULL);
        return dir && fs_exists(AT_FDCWD, dir);
    }
    for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
        _free_ char *dir = cgroup_dir(c, controllers[i]);
        if (dir && fs_exists(AT_FDCWD, dir))
            return true;
    }
    return false;
}

int cgroup_stats(const struct cgroup *c, Google__Protobuf__Any **ret, struct err *e)
{
    if (!cgroup_is_known(c) || !cgroup_exists(c))
        return err_set(e, ERR_NOT_FOUND, "cgroup does not exist: not found");
    return c->is_unified ? stats_v2(c, ret, e) : stats_v1(c, ret, e);
}

/* Mounted, and no plain directory that somebody took for it. */
static bool is_hierarchy(const char *root)
{
    struct statfs fs;

    return statfs(root, &fs) == 0 &&
           (fs.f_type == CGROUP_SUPER_MAGIC || fs.f_type == CGROUP2_SUPER_MAGIC);
}

static int add_to(const char *dir, pid_t pid)
{
    char number[16];
    int n = snprintf(number, sizeof(number), "%d", (int)pid);
    _free_ char *procs = fs_join(dir, "cgroup.procs");

    if (!procs)
        return -ENOMEM;
    int r = fs_mkdir_p(AT_FDCWD, dir, 0755);
    if (r < 0)
        return r;
    _close_ int fd = neg_errno(open(procs, O_WRONLY | O_CLOEXEC));
    return fd < 0 ? fd : fs_write_all(fd, number, (size_t)n);
}

int cgroup_add_process(const char *path, pid_t pid)
{
    const char *slash = path[0] == '/' ? "" : "/";
    int r = 0;

    if (strstr(path, ".."))
        return -EINVAL;
    if (is_unified(CGROUP_ROOT)) {
        _free_ char *dir = str_printf(CGROUP_ROOT "%s%s", slash, path);
        return dir ? add_to(dir, pid) : -ENOMEM;
    }
    DIR *d = opendir(CGROUP_ROOT);
    if (!d)
        return -errno;
    int n_entered = 0;
    for (const struct dirent *entry; r >= 0 && (entry = readdir(d));) {
        _free_ char *root = fs_join(CGROUP_ROOT, entry->d_name);
        _free_ char *dir = root ? str_printf("%s%s%s", root, slash, path) : NULL;
        if (!dir)
            r = -ENOMEM;
        else if (entry->d_type == DT_DIR && entry->d_name[0] != '.' && is_hierarchy(root))
            r = add_to(dir, pid);
        else
            continue;
        if (r >= 0)
            n_entered++;
        else if (str_eq(entry->d_name, "cpuset"))
            r = 0; /* a new cpuset has no cpus, and refuses */
    }
    closedir(d);
    return r < 0 ? r : n_entered > 0 ? 0 : -ENOENT;
}

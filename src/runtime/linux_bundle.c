/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/linux_bundle.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"

#define RECORD "runtime.json"
#define RECORD_MAX 16384
#define DEFAULT_RUNTIME "runc"
#define DEFAULT_ROOT "/run/containerd/runc"

static const char *const log_names[] = {
    [LINUX_LOG_STDOUT] = "shim.stdout.log",
    [LINUX_LOG_STDERR] = "shim.stderr.log",
};

void linux_runtime_done(struct linux_runtime *r)
{
    free(r->runtime);
    free(r->runtime_root);
    free(r->criu);
    *r = (struct linux_runtime){0};
}

static int write_record(struct bundle *b, const struct linux_runtime *runtime, struct err *e)
{
    json_t *root =
        json_pack("{s:s,s:s,s:s,s:b}", "runtime", str_or_empty(runtime->runtime), "root",
                  str_or_empty(runtime->runtime_root), "criu", str_or_empty(runtime->criu),
                  "systemd_cgroup", runtime->systemd_cgroup);
    _free_ char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

    json_decref(root);
    if (!text)
        return err_set(e, ERR_INVALID_ARGUMENT, "runtime options are not UTF-8: invalid argument");
    int r = fs_write_file_atomic(b->dir_fd, RECORD, text, strlen(text), 0600, false);
    return r < 0 ? err_errno(e, r, "write %s/" RECORD, b->path) : 0;
}

static int make_logs(struct bundle *b, struct err *e)
{
    for (size_t i = 0; i < LINUX_LOGS; i++) {
        _free_ char *path = fs_join(b->work_path, log_names[i]);
        if (!path)
            return err_oom(e);
        if (mkfifo(path, 0700) < 0)
            return err_errno(e, -errno, "make fifo %s", path);
    }
    return 0;
}

int linux_bundle_create(const char *root, const char *state, const char *ns, const char *id,
                        const void *spec, size_t spec_len, const struct linux_runtime *runtime,
                        struct bundle *ret, struct err *e)
{
    struct bundle b = BUNDLE_NULL;

    int r = bundle_begin(root, state, BUNDLE_LINUX, ns, id, spec, spec_len, &b, e);
    if (r < 0)
        return r;
    r = write_record(&b, runtime, e);
    if (r >= 0)
        r = make_logs(&b, e);
    if (r < 0) {
        bundle_remove(&b, NULL);
        bundle_done(&b);
        return r;
    }
    *ret = b;
    return 0;
}

static char *string_of(json_t *root, const char *key, const char *otherwise)
{
    const char *value = json_string_value(json_object_get(root, key));

    return strdup(str_empty(value) ? otherwise : value);
}

int linux_bundle_read_runtime(struct bundle *b, struct linux_runtime *ret)
{
    _free_ char *text = NULL;
    size_t len = 0;
    json_t *root = NULL;

    if (fs_read_file(b->dir_fd, RECORD, RECORD_MAX, &text, &len) >= 0)
        root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    struct linux_runtime runtime = {
        .runtime = string_of(root, "runtime", DEFAULT_RUNTIME),
        .runtime_root = string_of(root, "root", DEFAULT_ROOT),
        .criu = string_of(root, "criu", ""),
        .systemd_cgroup = json_is_true(json_object_get(root, "systemd_cgroup")),
    };
    json_decref(root);
    if (!runtime.runtime || !runtime.runtime_root || !runtime.criu) {
        linux_runtime_done(&runtime);
        return -ENOMEM;
    }
    *ret = runtime;
    return 0;
}

int linux_bundle_open_log(struct bundle *b, enum linux_log which, bool nonblocking, int *ret_fd)
{
    _free_ char *path = fs_join(b->work_path, log_names[which]);
    struct stat st;

    if (!path)
        return -ENOMEM;
    _close_ int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (nonblocking ? O_NONBLOCK : 0));
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
        return -EINVAL;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int linux_bundle_write_shim(struct bundle *b, const char *address, pid_t pid, struct err *e)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "%d", (int)pid);

    int r = fs_write_file_atomic(b->dir_fd, "shim.pid", text, (size_t)n, 0644, false);
    if (r >= 0)
        r = fs_write_file_atomic(b->dir_fd, "address", address, strlen(address), 0644, false);
    if (r < 0)
        return err_errno(e, r, "write address of the shim into %s", b->path);
    return 0;
}

char *linux_bundle_read_address(struct bundle *b)
{
    char *text = NULL;
    size_t len = 0;

    if (fs_read_file(b->dir_fd, "address", BUNDLE_ADDRESS_MAX, &text, &len) < 0)
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    if (*text)
        return text;
    free(text);
    return NULL;
}

void linux_bundle_note_exit_told(struct bundle *b)
{
    _close_ int fd = openat(b->dir_fd, "exit.told", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    if (fd < 0)
        log_warn("note in %s that the exit was published: %s", b->path, err_strerror(errno));
}

bool linux_bundle_is_exit_told(struct bundle *b)
{
    return fs_exists(b->dir_fd, "exit.told");
}

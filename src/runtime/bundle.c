/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/bundle.h"

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mount.h"
#include "base/str.h"
#include "oci/config.h"

#define BOOTSTRAP_MAX 4096

void bundle_done(struct bundle *b)
{
    free(b->ns);
    free(b->id);
    free(b->path);
    free(b->work_path);
    close_fd(&b->dir_fd);
    *b = (struct bundle)BUNDLE_NULL;
}

static int bundle_init(struct bundle *b, const char *root, const char *state, const char *runtime,
                       const char *ns, const char *id, struct err *e)
{
    *b = (struct bundle)BUNDLE_NULL;
    b->ns = strdup(ns);
    b->id = strdup(id);
    b->path = str_printf("%s/%s/%s/%s", state, runtime, ns, id);
    b->work_path = str_printf("%s/%s/%s/%s", root, runtime, ns, id);
    if (!b->ns || !b->id || !b->path || !b->work_path)
        return err_oom(e);
    return 0;
}

/* With a user namespace the container's root must reach its rootfs, so the bundle belongs to its
 * group. */
static int bundle_open_to_mapped_root(int dir_fd, const void *spec, size_t spec_len, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {0};

    int r = oci_config_parse(spec, spec_len, &config, e);
    if (r < 0)
        return r;
    if (!config.has_root_gid || config.root_gid == 0)
        return 0;
    if (fchown(dir_fd, (uid_t)-1, (gid_t)config.root_gid) < 0)
        return err_errno(e, -errno, "give the bundle to group %u", config.root_gid);
    if (fchmod(dir_fd, 0710) < 0)
        return err_errno(e, -errno, "set the mode of the bundle");
    return 0;
}

static int bundle_make_work(struct bundle *b, struct err *e)
{
    /* What a former task of that name left there is of no use to this one. */
    int r = fs_rm_rf(AT_FDCWD, b->work_path);
    if (r >= 0)
        r = fs_mkdir_p(AT_FDCWD, b->work_path, 0711);
    if (r < 0)
        return err_errno(e, r, "make work directory %s", b->work_path);
    return 0;
}

static int bundle_fill(struct bundle *b, const void *spec, size_t spec_len, struct err *e)
{
    int r = bundle_open_to_mapped_root(b->dir_fd, spec, spec_len, e);
    if (r < 0)
        return r;
    r = fs_write_file_atomic(b->dir_fd, "config.json", spec, spec_len, 0644, false);
    if (r < 0)
        return err_errno(e, r, "write %s/config.json", b->path);
    r = fs_mkdir_p(b->dir_fd, "rootfs", 0711);
    if (r < 0)
        return err_errno(e, r, "make %s/rootfs", b->path);
    return bundle_make_work(b, e);
}

/* Who could write there could put a bundle of their own in the place of one. */
static int make_parents(const char *state, const char *runtime, const char *ns, struct err *e)
{
    _free_ char *of_runtime = str_printf("%s/%s", state, runtime);
    _free_ char *of_namespace = str_printf("%s/%s/%s", state, runtime, ns);

    if (!of_runtime || !of_namespace)
        return err_oom(e);
    const char *const paths[] = {of_runtime, of_namespace};
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        _close_ int fd = -EBADF;
        int r = fs_open_private_dir(paths[i], 0711, &fd);
        if (r < 0)
            return err_errno(e, r, "make directory %s our own", paths[i]);
    }
    return 0;
}

int bundle_begin(const char *root, const char *state, const char *runtime, const char *ns,
                 const char *id, const void *spec, size_t spec_len, struct bundle *ret,
                 struct err *e)
{
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;

    int r = bundle_init(&b, root, state, runtime, ns, id, e);
    if (r < 0)
        return r;

    r = make_parents(state, runtime, ns, e);
    if (r < 0)
        return r;
    if (mkdir(b.path, 0700) < 0) {
        if (errno == EEXIST)
            return err_set(e, ERR_ALREADY_EXISTS, "bundle %s: already exists", b.path);
        return err_errno(e, -errno, "make bundle %s", b.path);
    }

    b.dir_fd = open(b.path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (b.dir_fd < 0)
        r = err_errno(e, -errno, "open bundle %s", b.path);
    else
        r = bundle_fill(&b, spec, spec_len, e);
    if (r < 0) {
        bundle_remove(&b, NULL);
        return r;
    }
    *ret = b;
    b = (struct bundle)BUNDLE_NULL;
    return 0;
}

static int bundle_add_shim_files(struct bundle *b, const char *shim_binary, struct err *e)
{
    int r = fs_write_file_atomic(b->dir_fd, "shim-binary-path", shim_binary, strlen(shim_binary),
                                 0600, false);
    if (r < 0)
        return err_errno(e, r, "write %s/shim-binary-path", b->path);
    if (mkfifoat(b->dir_fd, "log", 0700) < 0)
        return err_errno(e, -errno, "make fifo %s/log", b->path);
    if (symlinkat(b->work_path, b->dir_fd, "work") < 0)
        return err_errno(e, -errno, "link work directory %s", b->work_path);
    return 0;
}

int bundle_create(const char *root, const char *state, const char *ns, const char *id,
                  const void *spec, size_t spec_len, const char *shim_binary, struct bundle *ret,
                  struct err *e)
{
    struct bundle b = BUNDLE_NULL;

    int r = bundle_begin(root, state, BUNDLE_V2, ns, id, spec, spec_len, &b, e);
    if (r < 0)
        return r;
    r = bundle_add_shim_files(&b, shim_binary, e);
    if (r < 0) {
        bundle_remove(&b, NULL);
        bundle_done(&b);
        return r;
    }
    *ret = b;
    return 0;
}

int bundle_load(const char *root, const char *state, const char *runtime, const char *ns,
                const char *id, struct bundle *ret, struct err *e)
{
    _cleanup_(bundle_done) struct bundle b = BUNDLE_NULL;

    int r = bundle_init(&b, root, state, runtime, ns, id, e);
    if (r < 0)
        return r;
    b.dir_fd = open(b.path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (b.dir_fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return err_set(e, ERR_NOT_FOUND, "bundle %s: not found", b.path);
    if (b.dir_fd < 0)
        return err_errno(e, -errno, "open bundle %s", b.path);
    *ret = b;
    b = (struct bundle)BUNDLE_NULL;
    return 0;
}

int bundle_revive(struct bundle *b, struct err *e)
{
    const char *name = strrchr(b->path, '/');
    _free_ char *parent = strndup(b->path, (size_t)(name - b->path));
    if (!parent)
        return err_oom(e);

    int r = fs_mkdir_p(AT_FDCWD, parent, 0711);
    if (r >= 0 && mkdir(b->path, 0700) < 0)
        r = errno == EEXIST ? 0 : -errno;
    if (r < 0)
        return err_errno(e, r, "make bundle %s again", b->path);
    _close_ int fd = open(b->path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, -errno, "open bundle %s", b->path);
    close_fd(&b->dir_fd);
    b->dir_fd = TAKE_FD(fd);
    return 0;
}

/* Renames `path` to a hidden name beside it, then removes that: an interrupted removal is never
 * mistaken for a task. */
static int remove_hidden(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    _free_ char *hidden = str_printf("%.*s.%s", (int)(name - path), path, name);
    if (!hidden)
        return -ENOMEM;

    int r = fs_rm_rf(AT_FDCWD, hidden);
    if (r < 0)
        return r;
    if (rename(path, hidden) < 0)
        return errno == ENOENT ? 0 : -errno;
    return fs_rm_rf(AT_FDCWD, hidden);
}

int bundle_remove(struct bundle *b, struct err *e)
{
    _free_ char *rootfs = fs_join(b->path, "rootfs");
    if (!rootfs)
        return err_oom(e);

    int r = mount_unmount_all(rootfs, true);
    if (r < 0)
        return err_errno(e, r, "unmount %s", rootfs);
    if (rmdir(rootfs) < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_errno(e, -errno, "remove %s", rootfs);

    r = remove_hidden(b->path);
    if (r < 0)
        return err_errno(e, r, "remove bundle %s", b->path);
    r = remove_hidden(b->work_path);
    if (r < 0)
        return err_errno(e, r, "remove work directory %s", b->work_path);
    return 0;
}

int bundle_write_bootstrap(struct bundle *b, const char *address, int version, struct err *e)
{
    char json[BUNDLE_ADDRESS_MAX + 64];
    int n =
        snprintf(json, sizeof(json), "{\"version\":%d,\"address\":\"%s\",\"protocol\":\"ttrpc\"}",
                 version, address);
    if (n < 0 || (size_t)n >= sizeof(json))
        return err_set(e, ERR_INVALID_ARGUMENT, "shim address %.64s... is too long", address);

    int r = fs_write_file_atomic(b->dir_fd, "bootstrap.json", json, (size_t)n, 0644, false);
    if (r >= 0)
        r = fs_write_file_atomic(b->dir_fd, "address", address, strlen(address), 0644, false);
    if (r < 0)
        return err_errno(e, r, "write address of the shim into %s", b->path);
    return 0;
}

static int parse_bootstrap(const char *text, size_t len, char **ret_address, int *ret_version)
{
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const char *address = json_string_value(json_object_get(root, "address"));
    json_int_t version = json_integer_value(json_object_get(root, "version"));
    int r = -EBADMSG;

    if (address && strlen(address) < BUNDLE_ADDRESS_MAX && (version == 2 || version == 3)) {
        char *copy = strdup(address);
        r = copy ? 0 : -ENOMEM;
        if (copy) {
            *ret_address = copy;
            *ret_version = (int)version;
        }
    }
    json_decref(root);
    return r;
}

int bundle_read_bootstrap(struct bundle *b, char **ret_address, int *ret_version, struct err *e)
{
    _free_ char *text = NULL;
    size_t len = 0;

    if (fs_read_file(b->dir_fd, "bootstrap.json", BOOTSTRAP_MAX, &text, &len) >= 0 &&
        parse_bootstrap(text, len, ret_address, ret_version) >= 0)
        return 0;

    free(TAKE(text));
    int r = fs_read_file(b->dir_fd, "address", BUNDLE_ADDRESS_MAX, &text, &len);
    if (r < 0 || len == 0)
        return err_set(e, ERR_NOT_FOUND, "bundle %s has no address of a shim: not found", b->path);
    *ret_address = TAKE(text);
    *ret_version = 2;
    return 0;
}

char *bundle_read_shim_binary(struct bundle *b)
{
    char *text = NULL;
    size_t len = 0;

    if (fs_read_file(b->dir_fd, "shim-binary-path", 4096, &text, &len) < 0)
        return NULL;
    return text;
}

pid_t bundle_read_pid(const struct bundle *b, const char *file)
{
    _free_ char *text = NULL;
    size_t len = 0;
    uint32_t pid = 0;

    if (fs_read_file(b->dir_fd, file, 32, &text, &len) < 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return str_to_u32(text, &pid) < 0 || pid > INT_MAX ? 0 : (pid_t)pid;
}

int bundle_open_log(struct bundle *b, int *ret_fd)
{
    int fd = openat(b->dir_fd, "log", O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;

    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode)) {
        close(fd);
        return -EINVAL;
    }
    *ret_fd = fd;
    return 0;
}

static bool is_dots(const char *name)
{
    return str_eq(name, ".") || str_eq(name, "..");
}

int bundle_walk(const char *state, const char *runtime,
                void (*fn)(void *userdata, const char *ns, const char *id), void *userdata,
                struct err *e)
{
    _free_ char *base = str_printf("%s/%s", state, runtime);
    if (!base)
        return err_oom(e);

    DIR *spaces, *ids;
    int r = fs_open_dir(AT_FDCWD, base, &spaces);
    if (r < 0)
        return r == -ENOENT ? 0 : err_errno(e, r, "read directory %s", base);
    for (struct dirent *ns; (ns = readdir(spaces));) {
        if (ns->d_name[0] == '.' || fs_open_dir(dirfd(spaces), ns->d_name, &ids) < 0)
            continue;
        for (struct dirent *id; (id = readdir(ids));) {
            if (is_dots(id->d_name))
                continue;
            if (id->d_name[0] == '.')
                fs_rm_rf(dirfd(ids), id->d_name);
            else
                fn(userdata, ns->d_name, id->d_name);
        }
        closedir(ids);
    }
    closedir(spaces);
    return 0;
}

void bundle_sweep_work(const char *root, const char *state, const char *runtime,
                       void (*fn)(void *userdata, const char *ns, const char *id), void *userdata)
{
    _free_ char *base = str_printf("%s/%s", root, runtime);
    DIR *spaces, *ids;

    if (!base || fs_open_dir(AT_FDCWD, base, &spaces) < 0)
        return;

    for (struct dirent *ns; (ns = readdir(spaces));) {
        if (is_dots(ns->d_name) || fs_open_dir(dirfd(spaces), ns->d_name, &ids) < 0)
            continue;
        for (struct dirent *id; (id = readdir(ids));) {
            if (is_dots(id->d_name))
                continue;
            _free_ char *bundle = str_printf("%s/%s/%s/%s", state, runtime, ns->d_name, id->d_name);
            if (!bundle || fs_exists(AT_FDCWD, bundle))
                continue;
            log_info("removing work directory of a task that is gone: %s/%s", ns->d_name,
                     id->d_name);
            fs_rm_rf(dirfd(ids), id->d_name);
            fn(userdata, ns->d_name, id->d_name);
        }
        closedir(ids);
    }
    closedir(spaces);
}

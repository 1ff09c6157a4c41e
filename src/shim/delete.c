/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `delete` is run by daemons after the end of a shim, whatever it was, also after a clean one. It
 * knows nothing but the bundle, works with what is there, and a second run finds nothing to do.
 * What cannot be undone is told on stderr, which daemons log; only the answer goes to stdout.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/identifier.h"
#include "base/log.h"
#include "base/mount.h"
#include "base/proc.h"
#include "base/sock.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "oci/config.h"
#include "oci/exit_record.h"
#include "oci/runtime_choice.h"
#include "shim/actions.h"
#include "shim/address.h"
#include "shim/options.h"
#include "shim/runtime_program.h"
#include "shim/sandbox.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"

/* Daemons give us 5 s altogether. */
#define OWN_END_MS 1000
#define SHARED_END_MS 50
#define RUNTIME_TIMEOUT_MS 3000
#define RUNTIME_AGAIN_TIMEOUT_MS 1000
#define RUNTIME_PAUSE_US 200000
#define KILL_TIMEOUT_MS 500
#define OUTPUT_MAX 4096
#define STATUS_KILLED 137

/* The bundle: -bundle, or the sibling of the current directory that is named like the container. */
static char *find_bundle(const struct args *args)
{
    char cwd[PATH_MAX];

    if (!str_empty(args->bundle))
        return strdup(args->bundle);
    if (!getcwd(cwd, sizeof(cwd)))
        return NULL;
    char *slash = strrchr(cwd, '/');
    *slash = '\0';
    return str_printf("%s/%s", cwd, args->id);
}

/* Whether the runtime may know the container: its state directory is there. */
static bool runtime_has_state(const char *root, const char *id)
{
    _free_ char *path = fs_join(root, id);
    return !path || fs_exists(AT_FDCWD, path);
}

static void unmount_below(const char *dir, const char *name)
{
    _free_ char *path = fs_join(dir, name);

    if (!path)
        return;
    int r = mount_unmount_below(path);
    if (r < 0)
        log_warn("failed to unmount %s: %s", path, err_strerror(r));
}

static char *find_runtime(char *recorded, const char *bundle)
{
    _cleanup_(oci_config_done) struct oci_config config = {};
    _cleanup_(runtime_facts_done) struct runtime_facts facts = {};
    _cleanup_(runtime_choice_done) struct runtime_choice choice = {};
    char *path = NULL;

    if (recorded && recorded[0] == '/')
        return recorded;
    if (recorded && proc_find_program(recorded, NULL, &path) == 0) {
        free(recorded);
        return path;
    }
    free(recorded);
    oci_config_load(bundle, &config, NULL);
    if (runtime_facts_find(NULL, NULL, NULL, &facts) < 0 ||
        runtime_choice_make(&facts, config.oci_version, &choice, NULL) < 0)
        return NULL;
    return TAKE(choice.path);
}

/* False when it has failed and may succeed later. */
static bool delete_by_runtime(const char *bundle, const char *namespace_, const char *id,
                              int timeout_ms)
{
    _cleanup_(options_done) struct options options = {};
    _cleanup_(buf_done) struct buf output = BUF_INIT(OUTPUT_MAX);
    _cleanup_(runtime_program_done) struct runtime_program program = RUNTIME_PROGRAM_NULL;
    _free_ char *recorded = NULL;
    int status = 0;

    if (options_load(bundle, &options, &recorded) < 0)
        return true;
    _free_ char *root = options_runtime_root(&options, namespace_);
    if (!root || !runtime_has_state(root, id))
        return true;
    unmount_below(root, id); /* what a killed runc leaves there, see container_end.h */
    _free_ char *runtime = find_runtime(TAKE(recorded), bundle);
    if (!runtime) {
        log_warn("no OCI runtime found to delete container %s with", id);
        return true;
    }
    const char *const argv[] = {runtime,
                                "--root",
                                root,
                                options.systemd_cgroup ? "--systemd-cgroup" : "delete",
                                options.systemd_cgroup ? "delete" : "--force",
                                options.systemd_cgroup ? "--force" : id,
                                options.systemd_cgroup ? id : NULL,
                                NULL};
    const struct proc_spawn s = {.path = runtime,
                                 .exec_fd = runtime_program_fd(&program, runtime),
                                 .argv = argv,
                                 .cwd = "/"};
    int r = proc_run(&s, NULL, 0, timeout_ms, &output, &status);
    if (r < 0)
        log_warn("%s delete of container %s: %s", runtime, id, err_strerror(r));
    else if (status != 0)
        log_warn("%s delete of container %s: status %d: %.*s", runtime, id, status, (int)output.len,
                 (const char *)buf_head(&output));
    return r == 0 && status == 0;
}

static int find_group(const char *bundle, struct cgroup *ret)
{
    _cleanup_(oci_config_done) struct oci_config config = {};

    if (cgroup_load(ret, bundle) >= 0)
        return 0;
    /* Where the shim did not get as far as recording the group, the configuration names it. */
    return oci_config_load(bundle, &config, NULL) < 0 ? -ENOENT
                                                      : cgroup_init_path(ret, config.cgroups_path);
}

/* A runtime that ends a frozen container waits for it in vain, until it is killed for that. */
static void kill_frozen(const char *bundle)
{
    _cleanup_(cgroup_done) struct cgroup cgroup = {};

    if (find_group(bundle, &cgroup) >= 0 && cgroup_outlasts_kill(&cgroup))
        cgroup_kill(&cgroup);
}

static void kill_rest(const char *bundle, const char *id)
{
    _cleanup_(cgroup_done) struct cgroup cgroup = {};

    if (find_group(bundle, &cgroup) < 0)
        return;
    int left = cgroup_end(&cgroup, KILL_TIMEOUT_MS);
    if (left > 0)
        log_warn("container %s: %d processes do not go", id, left);
    else if (left < 0)
        log_warn("container %s: its processes cannot be killed: %s", id, err_strerror(left));
}

/* What the runtime does not delete although nobody is left of the container: crun, for one, fails as
 * long as some thread has the pid that init had. Its state would keep the id from being used. */
static void delete_without_runtime(const char *bundle, const char *namespace_, const char *id)
{
    _cleanup_(options_done) struct options options = {};
    _cleanup_(cgroup_done) struct cgroup cgroup = {};
    _free_ char *recorded = NULL;

    if (options_load(bundle, &options, &recorded) < 0 || cgroup_load(&cgroup, bundle) < 0 ||
        cgroup_end(&cgroup, KILL_TIMEOUT_MS) > 0)
        return;
    _free_ char *root = options_runtime_root(&options, namespace_);
    _free_ char *path = root ? fs_join(root, id) : NULL;
    int r = path ? fs_rm_rf(AT_FDCWD, path) : -ENOMEM;
    if (r < 0)
        log_warn("container %s: remove its state: %s", id, err_strerror(r));
    cgroup_remove(&cgroup);
}

/* note has files of the container's bundle, which may be gone. */
static void end_noted(const char *note, const char *namespace_, const char *id)
{
    _free_ char *link = fs_join(note, "bundle");
    char bundle[PATH_MAX];
    ssize_t n = link ? readlink(link, bundle, sizeof(bundle) - 1) : -1;

    kill_rest(note, id);
    if (!delete_by_runtime(note, namespace_, id, RUNTIME_AGAIN_TIMEOUT_MS))
        delete_without_runtime(note, namespace_, id);
    if (n > 0 && bundle[0] == '/') {
        bundle[n] = '\0';
        unmount_below(bundle, "rootfs");
    }
}

/* The containers of a sandbox whose shim was killed: their daemon leaves them to us. */
static void end_sandbox(const char *bundle, const char *namespace_)
{
    _free_ char *notes = fs_join(bundle, SANDBOX_CONTAINERS);
    DIR *dir = notes ? opendir(notes) : NULL;

    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const char *id = entry->d_name;
        _free_ char *note = identifier_validate(id, NULL) < 0 ? NULL : fs_join(notes, id);
        if (note)
            end_noted(note, namespace_, id);
    }
    if (dir)
        closedir(dir);
}

/* The connection ends within timeout_ms: whoever listened is gone. */
static bool peer_ends(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) == 1;
}

/* Any file refuses connections, and the bundle's word for it that this is a socket is only a word.
 */
static bool is_our_socket(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_uid == geteuid();
}

/* The socket of a shim that was killed lies about; one that answers belongs to a living shim. A
 * killed one may still be on its way out: its sockets are closed one after the other, and the
 * daemon that calls us has seen the first of them. A shim of a group may live for others and is not
 * waited for long. */
static void remove_socket(const char *bundle, const struct args *args)
{
    _cleanup_(oci_config_done) struct oci_config config = {};
    _free_ char *path = NULL;
    _close_ int fd = -EBADF;

    oci_config_load(bundle, &config, NULL);
    bool is_shared = config.group && !str_eq(config.group, args->id);
    if (address_read(bundle, &path) < 0)
        path = address_path(NULL, args->address, args->namespace_,
                            is_shared ? config.group : args->id);
    if (!path)
        return;
    int r = sock_connect(path, 0, &fd);
    if (r == 0 && peer_ends(fd, is_shared ? SHARED_END_MS : OWN_END_MS)) {
        close_fd(&fd);
        r = sock_connect(path, 0, &fd);
    }
    if (r == -ECONNREFUSED && is_our_socket(path))
        unlink(path);
}

static pid_t read_init_pid(const char *bundle)
{
    _free_ char *path = fs_join(bundle, "init.pid");
    _free_ char *text = NULL;
    uint32_t pid;
    size_t n;

    if (!path || fs_read_file(AT_FDCWD, path, 32, &text, &n) < 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return str_to_u32(text, &pid) == 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

static int print_answer(const struct exit_record *record, struct err *e)
{
    Pb__Task__DeleteResponse response = PB__TASK__DELETE_RESPONSE__INIT;
    _free_ uint8_t *packed = NULL;

    response.pid = (uint32_t)record->pid;
    response.exit_status = record->status;
    response.exited_at = pb_timestamp_new(record->at);
    size_t n = pb__task__delete_response__get_packed_size(&response);
    packed = malloc(n);
    int r = packed && response.exited_at ? 0 : -ENOMEM;
    if (r == 0) {
        pb__task__delete_response__pack(&response, packed);
        r = fs_write_all(STDOUT_FILENO, packed, n);
    }
    pb_free(response.exited_at ? &response.exited_at->base : NULL);
    return r < 0 ? err_errno(e, r, "failed to print the answer") : 0;
}

int action_delete(const struct args *args, struct err *e)
{
    _free_ char *bundle = find_bundle(args);
    struct exit_record record;

    if (!bundle) {
        err_set(e, ERR_UNKNOWN, "failed to find the bundle of container %s", args->id);
        return EXIT_FAILURE;
    }
    log_set_level(LOG_WARN);
    /* Read before anything else dies: what the shim saw itself is the truth. */
    if (exit_record_read(bundle, NULL, &record) < 0)
        record = (struct exit_record){.pid = read_init_pid(bundle), .status = STATUS_KILLED};
    uint64_t deadline = clock_monotonic_ms() + RUNTIME_TIMEOUT_MS;
    kill_frozen(bundle);
    bool deleted = delete_by_runtime(bundle, args->namespace_, args->id, RUNTIME_TIMEOUT_MS);
    kill_rest(bundle, args->id);
    /* It gives up, and keeps its state, while the group is busy or (crun) while init has ended and
     * nobody has reaped it. */
    while (!deleted && clock_monotonic_ms() < deadline) {
        usleep(RUNTIME_PAUSE_US);
        deleted = delete_by_runtime(bundle, args->namespace_, args->id, RUNTIME_AGAIN_TIMEOUT_MS);
    }
    if (!deleted)
        delete_without_runtime(bundle, args->namespace_, args->id);
    end_sandbox(bundle, args->namespace_);
    unmount_below(bundle, "rootfs");
    remove_socket(bundle, args);
    if (record.at.tv_sec == 0)
        record.at = clock_realtime();
    return print_answer(&record, e) < 0 ? EXIT_FAILURE : 0;
}

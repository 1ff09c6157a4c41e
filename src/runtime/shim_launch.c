/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_launch.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "task.v2.pb-c.h"
#include "wire/pb.h"

#define SHIM_BACKLOG 64
#define ERROR_TEXT_MAX 4096
#define OOM_SCORE_MAX 1000
#define LOCK_TIMEOUT_MS 2000

char *shim_socket_address(const struct shim_host *host, const char *ns, const char *group)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char hex[2 * SHA256_DIGEST_LENGTH + 1];

    /* The name is that of Go's path.Join(), so that other programs find the same socket. */
    _free_ char *joined = str_printf("%s/%s/%s", host->grpc_address, ns, group);
    _free_ char *name = joined ? fs_clean_path(joined) : NULL;
    if (!name)
        return NULL;
    SHA256((const unsigned char *)name, strlen(name), digest);
    str_hex(digest, sizeof(digest), hex);
    return str_printf("unix://%s/%s", host->socket_dir, hex);
}

char **shim_environment(const struct shim_host *host, const struct bundle *b)
{
    const char *names[] = {
        "TTRPC_ADDRESS=", "GRPC_ADDRESS=",  "NAMESPACE=",     "MAX_SHIM_VERSION=",
        "GOMAXPROCS=",    "NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID="};
    const char *values[] = {host->ttrpc_address, host->grpc_address, b->ns, "3", "2"};
    _cleanup_(strv_freep) char **env = NULL;

    for (char **v = environ; *v; v++) {
        bool replaced = false;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
            replaced |= str_after_prefix(*v, names[i]) != NULL;
        if (!replaced && strv_push(&env, *v) < 0)
            return NULL;
    }
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        _free_ char *entry = str_printf("%s%s", names[i], values[i]);
        if (!entry || strv_push(&env, entry) < 0)
            return NULL;
    }
    return TAKE(env);
}

void shim_raise_oom_score(pid_t pid)
{
    _free_ char *text = NULL;
    size_t len = 0;
    int64_t own = 0;
    char path[64], value[16];

    if (fs_read_file(AT_FDCWD, "/proc/self/oom_score_adj", 32, &text, &len) >= 0) {
        text[strcspn(text, "\n")] = '\0';
        (void)str_to_i64(text, &own);
    }
    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
    int n = snprintf(value, sizeof(value), "%d", (int)MIN_OF(own + 1, OOM_SCORE_MAX));
    _close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, (size_t)n) < 0)
        log_warn("set the OOM score of shim %d: %s", (int)pid, err_strerror(errno));
}

int shim_enter_cgroup(const char *cgroup, pid_t pid, struct err *e)
{
    int r = cgroup_add_process(cgroup, pid);

    return r < 0 ? err_set(e, r == -ENOMEM ? ERR_INTERNAL : ERR_FAILED_PRECONDITION,
                           "put shim into cgroup %s: %s", cgroup, err_strerror(r))
                 : 0;
}

static int spawn_own(const struct shim_host *host, const char *binary, const struct bundle *b,
                     int listen_fd, struct proc *ret, struct err *e)
{
    _cleanup_(strv_freep) char **env = shim_environment(host, b);
    const char *argv[] = {binary,
                          "-namespace",
                          b->ns,
                          "-id",
                          b->id,
                          "-address",
                          host->grpc_address,
                          host->debug ? "-debug" : NULL,
                          NULL};
    int fds[] = {-EBADF, -EBADF, -EBADF, listen_fd};
    struct proc_spawn spawn = PROC_SPAWN_INIT;

    if (!env)
        return err_oom(e);
    spawn.path = binary;
    spawn.argv = argv;
    spawn.envp = (const char *const *)env;
    spawn.cwd = b->path;
    spawn.fds = fds;
    spawn.n_fds = ARRAY_SIZE(fds);
    spawn.new_group = true;
    spawn.open_files = &host->open_files;
    int r = proc_spawn(&spawn, ret);
    return r < 0 ? err_errno(e, r, "start shim %s", binary) : 0;
}

int shim_launch_own(const struct shim_host *host, const char *binary, const struct bundle *b,
                    const char *group, const char *shim_cgroup, struct shim_endpoint *ret,
                    struct err *e)
{
    _free_ char *address = shim_socket_address(host, b->ns, group);
    _close_ int dir_fd = -EBADF;
    _close_ int listen_fd = -EBADF;
    struct proc proc = PROC_NULL;

    if (!address)
        return err_oom(e);
    const char *path = str_after_prefix(address, "unix://");
    int r = fs_open_private_dir(host->socket_dir, 0700, &dir_fd);
    if (r < 0)
        return err_errno(e, r, "make directory %s", host->socket_dir);
    /* Against the `start` of another container of the group: a socket between bind(2) and listen(2)
     * looks like one left behind. */
    r = fs_lock(dir_fd, LOCK_TIMEOUT_MS);
    if (r < 0)
        return err_errno(e, r, "lock directory %s", host->socket_dir);
    r = sock_listen(path, 0600, SHIM_BACKLOG, &listen_fd);
    close_fd(&dir_fd);
    if (r == -EADDRINUSE)
        return err_set(e, ERR_ALREADY_EXISTS, "a shim of group %s is running: already exists",
                       group);
    if (r < 0)
        return err_errno(e, r, "listen on %s", path);

    r = spawn_own(host, binary, b, listen_fd, &proc, e);
    if (r < 0) {
        unlink(path);
        return r;
    }
    shim_raise_oom_score(proc.pid);
    if (!str_empty(shim_cgroup) && (r = shim_enter_cgroup(shim_cgroup, proc.pid, e)) < 0) {
        proc_kill(&proc, SIGKILL);
        proc_reap(&proc, true, &(int){0});
        proc_done(&proc);
        unlink(path);
        return r;
    }
    ret->address = TAKE(address);
    ret->version = 2;
    ret->proc = proc;
    return 0;
}

int shim_run_action(const struct shim_host *host, const char *binary, const struct bundle *b,
                    const char *action, const void *input, size_t input_len, uint64_t timeout_ms,
                    struct buf *output, int *ret_status, struct err *e)
{
    _cleanup_(strv_freep) char **env = shim_environment(host, b);
    bool deleting = str_eq(action, "delete");
    const char *argv[16] = {binary,
                            "-namespace",
                            b->ns,
                            "-address",
                            host->grpc_address,
                            "-publish-binary",
                            host->daemon_binary,
                            "-id",
                            b->id};
    size_t n = 9;
    struct proc_spawn spawn = PROC_SPAWN_INIT;
    /* What `start` says on stderr is part of its answer; what `delete` says there goes to our log.
     */
    const int fds[] = {-EBADF, -EBADF, deleting ? STDERR_FILENO : -EBADF};
    int status = 0;

    *ret_status = 0;
    if (!env)
        return err_oom(e);
    spawn.fds = fds;
    spawn.n_fds = ARRAY_SIZE(fds);
    if (deleting) {
        argv[n++] = "-bundle";
        argv[n++] = b->path;
    }
    if (host->debug)
        argv[n++] = "-debug";
    argv[n++] = action;
    spawn.path = binary;
    spawn.argv = argv;
    spawn.envp = (const char *const *)env;
    spawn.cwd = b->path;
    spawn.new_group = true;
    spawn.open_files = &host->open_files;
    int r = proc_run(&spawn, input, input_len, (int)timeout_ms, output, &status);
    if (r < 0)
        return err_errno(e, r, "run %s %s", binary, action);
    *ret_status = status;
    if (status != 0)
        return err_set(e, ERR_UNKNOWN, "%.*s: exit status %d",
                       (int)MIN_OF(output->len, (size_t)ERROR_TEXT_MAX),
                       output->len ? (const char *)buf_head(output) : "", status);
    return 0;
}

int shim_run_delete(const struct shim_host *host, const char *binary, const struct bundle *b,
                    struct task_exit *ret, struct err *e)
{
    _cleanup_(buf_done) struct buf output = BUF_INIT(SHIM_OUTPUT_MAX);
    ProtobufCMessage *message = NULL;
    int status = 0;

    int r = shim_run_action(host, binary, b, "delete", NULL, 0, host->cleanup_timeout_ms, &output,
                            &status, e);
    if (r < 0)
        return r;
    r = pb_unpack(&pb__task__delete_response__descriptor, buf_head(&output), output.len, &message,
                  e);
    if (r < 0)
        return err_wrap(e, "decode answer of %s delete", binary);
    Pb__Task__DeleteResponse *response = (Pb__Task__DeleteResponse *)message;
    *ret = (struct task_exit){
        .pid = response->pid,
        .status = response->exit_status,
        .at = pb_timestamp_get(response->exited_at),
    };
    pb_free(message);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/linux_launch.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/sock.h"
#include "base/str.h"

#define SHIM_BACKLOG 64

int linux_find_shim(const struct linux_options *options, const char *daemon_dir,
                    struct shim_binary *ret, struct err *e)
{
    const char *name = options->shim;

    if (*name == '/') {
        if (access(name, X_OK) < 0)
            return err_set(e, ERR_NOT_FOUND,
                           "shim %s of [plugins.\"" LINUX_RUNTIME_NAME "\"] cannot be run: %s",
                           name, err_strerror(errno));
        ret->path = strdup(name);
        return ret->path ? 0 : err_oom(e);
    }
    ret->is_ours = proc_find_program(name, daemon_dir, &ret->path) >= 0;
    if (ret->is_ours || proc_find_program(name, NULL, &ret->path) >= 0)
        return 0;
    return err_set(e, ERR_NOT_FOUND,
                   "shim \"%s\" of runtime " LINUX_RUNTIME_NAME
                   " is neither beside the daemon nor on PATH: not found",
                   name);
}

/* A socket that is left of a former task of this name is replaced, as its shim serves nobody any
 * more. */
static int listen_for_shim(const struct shim_host *host, const char *path, int *ret_fd,
                           struct err *e)
{
    int r = fs_mkdir_p(AT_FDCWD, host->socket_dir, 0700);
    if (r < 0)
        return err_errno(e, r, "make directory %s", host->socket_dir);
    r = sock_listen(path, 0600, SHIM_BACKLOG, ret_fd);
    if (r == -EADDRINUSE && unlink(path) == 0)
        r = sock_listen(path, 0600, SHIM_BACKLOG, ret_fd);
    return r < 0 ? err_errno(e, r, "listen on %s", path) : 0;
}

static int spawn(const struct shim_host *host, const char *binary, struct bundle *b,
                 const struct linux_runtime *runtime, bool debug, int listen_fd, struct proc *ret,
                 struct err *e)
{
    _cleanup_(strv_freep) char **env = shim_environment(host, b);
    const char *argv[20] = {binary,
                            "-namespace",
                            b->ns,
                            "-workdir",
                            b->work_path,
                            "-address",
                            host->grpc_address,
                            "-containerd-binary",
                            host->daemon_binary};
    size_t n = 9;
    _close_ int out = -EBADF;
    _close_ int err = -EBADF;
    struct proc_spawn spawn = PROC_SPAWN_INIT;

    if (!env)
        return err_oom(e);
    if (!str_empty(runtime->criu)) {
        argv[n++] = "-criu";
        argv[n++] = runtime->criu;
    }
    if (!str_empty(runtime->runtime_root)) {
        argv[n++] = "-runtime-root";
        argv[n++] = runtime->runtime_root;
    }
    if (runtime->systemd_cgroup)
        argv[n++] = "-systemd-cgroup";
    if (debug)
        argv[n++] = "-debug";

    int r = linux_bundle_open_log(b, LINUX_LOG_STDOUT, false, &out);
    if (r >= 0)
        r = linux_bundle_open_log(b, LINUX_LOG_STDERR, false, &err);
    if (r < 0)
        return err_errno(e, r, "open log of the shim in %s", b->work_path);
    const int fds[] = {-EBADF, out, err, listen_fd};
    spawn.path = binary;
    spawn.argv = argv;
    spawn.envp = (const char *const *)env;
    spawn.cwd = b->path;
    spawn.fds = fds;
    spawn.n_fds = ARRAY_SIZE(fds);
    spawn.new_group = true;
    spawn.open_files = &host->open_files;
    r = proc_spawn(&spawn, ret);
    return r < 0 ? err_errno(e, r, "start shim %s", binary) : 0;
}

static void kill_and_reap(struct proc *proc)
{
    proc_kill(proc, SIGKILL);
    proc_reap(proc, true, &(int){0});
    proc_done(proc);
}

int linux_launch(const struct shim_host *host, const char *binary, struct bundle *b,
                 const struct linux_runtime *runtime, const char *shim_cgroup, bool debug,
                 struct shim_endpoint *ret, struct err *e)
{
    _free_ char *address = shim_socket_address(host, b->ns, b->id);
    _close_ int listen_fd = -EBADF;
    struct proc proc = PROC_NULL;

    if (!address)
        return err_oom(e);
    const char *path = str_after_prefix(address, "unix://");
    int r = listen_for_shim(host, path, &listen_fd, e);
    if (r < 0)
        return r;
    r = spawn(host, binary, b, runtime, debug, listen_fd, &proc, e);
    if (r < 0) {
        unlink(path);
        return r;
    }
    shim_raise_oom_score(proc.pid);
    r = linux_bundle_write_shim(b, address, proc.pid, e);
    if (r >= 0 && !str_empty(shim_cgroup))
        r = shim_enter_cgroup(shim_cgroup, proc.pid, e);
    if (r < 0) {
        kill_and_reap(&proc);
        unlink(path);
        return r;
    }
    *ret = (struct shim_endpoint){.address = TAKE(address), .version = 1, .proc = proc};
    return 0;
}

int linux_launch_local(const struct linux_options *options, struct bundle *b,
                       const struct linux_runtime *runtime, struct shim_endpoint *ret,
                       struct err *e)
{
    struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;

    endpoint.version = 1;
    endpoint.address = str_printf("local:%s/%s", b->ns, b->id);
    if (!endpoint.address)
        return err_oom(e);
    int r = options->no_shim->begin(options->no_shim->userdata, b->ns, runtime, options->shim_debug,
                                    &endpoint.local, e);
    if (r < 0) {
        shim_endpoint_done(&endpoint);
        return r;
    }
    *ret = endpoint;
    return 0;
}

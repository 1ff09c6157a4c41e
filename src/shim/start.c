/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `start` comes in three generations, and each is answered in its own words:
 *
 *     containerd 1.2 to 1.6   task options as an Any on stdin    the address as text
 *     1.7 to 2.2              the same, and MAX_SHIM_VERSION     JSON of that version, 3 at most;
 *                                                                3 for a sandbox from 2.0 on
 *     2.3 on                  BootstrapParams                    BootstrapResult
 *
 * BootstrapParams are known by their first two fields, which repeat -id and -namespace. The daemon
 * reads stderr along with stdout, so nothing else may be printed.
 *
 * Wherever this process is killed, what it leaves is found: the address is in the bundle before
 * there is a socket, a socket without a server is replaced by the next start and removed by
 * `delete`, and a server that nobody asks for anything leaves by itself.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/proc.h"
#include "base/sock.h"
#include "base/str.h"
#include "cgroup/cgroup.h"
#include "oci/config.h"
#include "runtime.bootstrap.v1.pb-c.h"
#include "shim/actions.h"
#include "shim/address.h"
#include "shim/options.h"
#include "wire/pb.h"

#define CONNECT_TIMEOUT_MS 100
#define LOCK_TIMEOUT_MS 2000
#define OOM_SCORE_MAX 1000
/* Of the task service, and so of the JSON. */
#define VERSION_MIN 2
#define VERSION_MAX 3
/* Whose bundles are those of sandboxes, from containerd 2.0 on: 1.7 has them among those of tasks. */
#define SANDBOX_PLUGIN "io.containerd.sandbox.controller.v1.shim"

struct start {
    struct args args;                       /* with what bootstrap parameters say instead */
    Pb__Bootstrap__BootstrapParams *params; /* NULL: of an older generation */
    const char *socket_dir;
    char *socket_path;
    struct options options;
    int dir_fd; /* of socket_dir; locked */
    int listen_fd;
    struct proc server;
};

int action_read_input(size_t max, uint8_t **ret, size_t *ret_n)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(max + 1);
    uint8_t *room;

    for (;;) {
        int r = buf_reserve(&b, 4096, &room);
        if (r == -ENOBUFS)
            return -EFBIG;
        if (r < 0)
            return r;
        ssize_t n = read(STDIN_FILENO, room, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EBADF ? 0 : -errno;
        if (n == 0)
            break;
        buf_commit(&b, (size_t)n);
    }
    size_t n = b.len;
    uint8_t *bytes = malloc(n + 1);
    if (!bytes)
        return -ENOMEM;
    if (n > 0)
        memcpy(bytes, buf_head(&b), n);
    *ret = bytes;
    *ret_n = n;
    return 0;
}

static void start_done(struct start *s)
{
    if (s->params)
        pb__bootstrap__bootstrap_params__free_unpacked(s->params, NULL);
    free(s->socket_path);
    options_done(&s->options);
    close_fd(&s->listen_fd);
    close_fd(&s->dir_fd);
    proc_done(&s->server);
}

/* Options of other types, or that do not parse, concern the Create that follows, not us. */
static void take_options(struct start *s, const Google__Protobuf__Any *any)
{
    if (any && !s->options.shim_cgroup)
        options_decode(any, &s->options, NULL);
}

/* An Any has two fields; whatever says more is told apart by them. */
static bool is_bootstrap(const struct args *args, const Pb__Bootstrap__BootstrapParams *p)
{
    return (str_eq(p->instance_id, args->id) && str_eq(p->namespace_, args->namespace_)) ||
           p->log_level != PB__BOOTSTRAP__LOG_LEVEL__LOG_LEVEL_INFO ||
           !str_empty(p->containerd_version) || !str_empty(p->containerd_ttrpc_address) ||
           !str_empty(p->containerd_grpc_address) || !str_empty(p->containerd_binary) ||
           p->n_extensions > 0 ||
           p->socket_dir_present_case !=
               PB__BOOTSTRAP__BOOTSTRAP_PARAMS__SOCKET_DIR_PRESENT__NOT_SET;
}

static int take_params(struct start *s, struct err *e)
{
    const Pb__Bootstrap__BootstrapParams *p = s->params;

    if (!str_eq(p->instance_id, s->args.id) || !str_eq(p->namespace_, s->args.namespace_))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "bootstrap parameters are for %.76s in namespace %.76s, the flags for %s in "
                       "namespace %s",
                       p->instance_id, p->namespace_, s->args.id, s->args.namespace_);
    for (size_t i = 0; i < p->n_extensions; i++)
        take_options(s, p->extensions[i]->value);
    if (p->socket_dir_present_case ==
            PB__BOOTSTRAP__BOOTSTRAP_PARAMS__SOCKET_DIR_PRESENT_SOCKET_DIR &&
        !str_empty(p->socket_dir)) {
        if (p->socket_dir[0] != '/')
            return err_set(e, ERR_INVALID_ARGUMENT, "socket directory \"%.200s\" is not absolute",
                           p->socket_dir);
        s->socket_dir = p->socket_dir;
    }
    if (!str_empty(p->containerd_grpc_address))
        s->args.address = p->containerd_grpc_address;
    if (!str_empty(p->containerd_binary))
        s->args.publish_binary = p->containerd_binary;
    if (!str_empty(p->containerd_ttrpc_address) &&
        setenv("TTRPC_ADDRESS", p->containerd_ttrpc_address, 1) < 0)
        return err_oom(e);
    s->args.debug |= p->log_level <= PB__BOOTSTRAP__LOG_LEVEL__LOG_LEVEL_DEBUG;
    return 0;
}

static int read_request(struct start *s, struct err *e)
{
    _free_ uint8_t *bytes = NULL;
    size_t n = 0;

    int r = action_read_input(ACTION_INPUT_MAX, &bytes, &n);
    if (r < 0)
        return err_errno(e, r, "failed to read the options on stdin");
    if (n == 0)
        return 0;
    s->params = pb__bootstrap__bootstrap_params__unpack(NULL, n, bytes);
    if (s->params && is_bootstrap(&s->args, s->params))
        return take_params(s, e);
    if (s->params)
        pb__bootstrap__bootstrap_params__free_unpacked(TAKE(s->params), NULL);
    Google__Protobuf__Any *any = google__protobuf__any__unpack(NULL, n, bytes);
    take_options(s, any);
    if (any)
        google__protobuf__any__free_unpacked(any, NULL);
    return 0;
}

static int open_socket_dir(struct start *s, struct err *e)
{
    struct stat st;

    if (!s->socket_dir) {
        s->socket_dir = ADDRESS_DIR;
        int r = fs_open_private_dir(s->socket_dir, 0700, &s->dir_fd);
        return r < 0 ? err_errno(e, r, "failed to make directory %s", s->socket_dir) : 0;
    }
    /* Somebody's choice, which may hold other things: it is looked at and not changed. */
    int r = fs_mkdir_p(AT_FDCWD, s->socket_dir, 0700);
    if (r == 0)
        r = s->dir_fd = neg_errno(open(s->socket_dir, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (r >= 0)
        r = neg_errno(fstat(s->dir_fd, &st));
    if (r < 0)
        return err_errno(e, r, "failed to open directory %s", s->socket_dir);
    if (st.st_uid != geteuid() || (st.st_mode & 022))
        return err_set(e, ERR_PERMISSION_DENIED, "others may write to socket directory %s",
                       s->socket_dir);
    return 0;
}

/* Whether a shim of ours answers on the socket. */
static bool is_served(const char *path)
{
    _close_ int connection = -EBADF;
    struct sock_peer peer;

    return sock_connect(path, CONNECT_TIMEOUT_MS, &connection) == 0 &&
           sock_peer(connection, &peer) == 0 && peer.uid == geteuid();
}

/* 1: a shim serves the group already. */
static int make_socket(struct start *s, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {};

    oci_config_load(".", &config, NULL); /* without one, the container is its own group */
    if (open_socket_dir(s, e) < 0)
        return ERR_RETURN;
    s->socket_path = address_path(s->socket_dir, s->args.address, s->args.namespace_,
                                  config.group ? config.group : s->args.id);
    if (!s->socket_path)
        return err_oom(e);
    if (strlen(s->socket_path) > SOCK_PATH_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "socket directory %.200s is too long: a socket's path has at most %d bytes",
                       s->socket_dir, SOCK_PATH_MAX);
    /* One start at a time: a socket between bind(2) and listen(2) looks like one left behind. */
    int r = fs_lock(s->dir_fd, LOCK_TIMEOUT_MS);
    if (r < 0)
        return err_errno(e, r, "directory %s is locked by another start", s->socket_dir);
    r = address_write(".", s->socket_path);
    if (r < 0)
        return err_errno(e, r, "failed to write the address into the bundle");
    r = sock_listen(s->socket_path, 0600, SOMAXCONN, &s->listen_fd);
    if (r == -EADDRINUSE && is_served(s->socket_path))
        return 1;
    return r < 0 ? err_errno(e, r, "failed to listen on %s", s->socket_path) : 0;
}

/* The serving process must be chosen after any container of its own, but before the daemon. */
static void set_oom_score(pid_t pid)
{
    _free_ char *text = NULL;
    char path[48], score[16];
    int64_t parents;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)getppid());
    if (fs_read_file(AT_FDCWD, path, 16, &text, &n) < 0)
        return;
    text[strcspn(text, "\n")] = '\0';
    if (str_to_i64(text, &parents) < 0)
        return;
    int len = snprintf(score, sizeof(score), "%d", (int)MIN_OF(parents + 1, OOM_SCORE_MAX));
    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
    _close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && fs_write_all(fd, score, (size_t)len) < 0)
        return; /* without the capability the inherited score stays */
}

static int spawn_server(struct start *s, struct err *e)
{
    const struct args *a = &s->args;
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n < 0)
        return err_errno(e, -errno, "failed to find this program");
    self[n] = '\0';
    const char *const argv[] = {self,
                                "-namespace",
                                a->namespace_,
                                "-id",
                                a->id,
                                "-address",
                                a->address,
                                "-publish-binary",
                                a->publish_binary,
                                a->debug ? "-debug" : NULL,
                                NULL};
    const int fds[] = {-EBADF, -EBADF, -EBADF, s->listen_fd};
    const struct proc_spawn spawn = {
        .path = self,
        .exec_fd = -EBADF,
        .argv = argv,
        .fds = fds,
        .n_fds = ARRAY_SIZE(fds),
        .new_group = true,
    };
    int r = proc_spawn(&spawn, &s->server);
    if (r < 0)
        return err_errno(e, r, "failed to start %s", self);
    if (s->options.shim_cgroup) {
        r = cgroup_add_process(s->options.shim_cgroup, s->server.pid);
        if (r < 0)
            return err_errno(e, r, "failed to put the shim into control group %.500s",
                             s->options.shim_cgroup);
    }
    set_oom_score(s->server.pid);
    return 0;
}

static int pack_result(char *address, uint8_t **ret, size_t *ret_n)
{
    Pb__Bootstrap__BootstrapResult result = PB__BOOTSTRAP__BOOTSTRAP_RESULT__INIT;

    result.version = VERSION_MAX;
    result.address = address;
    result.protocol = (char *)"ttrpc";
    return pb_pack(&result.base, ret, ret_n);
}

/* Of <state>/<plugin>/<namespace>/<id>, which is the working directory. */
static bool is_sandbox_bundle(void)
{
    _free_ char *path = getcwd(NULL, 0);
    char *slash = NULL;

    for (int i = 0; path && i < 3; i++) {
        if (slash)
            *slash = '\0';
        slash = strrchr(path, '/');
        if (!slash)
            return false;
    }
    return slash && str_eq(slash + 1, SANDBOX_PLUGIN);
}

/* Daemons that know of versions say which is the last that they understand. What 2.0 to 2.2 say is
 * 2, as 1.7 does, which refuses 3. But they understand 3, and let containers join the shim of a
 * sandbox only then. */
static char *format_answer(const char *address)
{
    const char *max = getenv("MAX_SHIM_VERSION");
    uint32_t version = 0;

    if (!max || str_to_u32(max, &version) < 0 || version < VERSION_MIN)
        return strdup(address);
    if (is_sandbox_bundle())
        version = VERSION_MAX;
    return str_printf("{\"version\":%u,\"address\":\"%s\",\"protocol\":\"ttrpc\"}",
                      MIN_OF(version, (uint32_t)VERSION_MAX), address);
}

static int print_answer(const struct start *s, struct err *e)
{
    _free_ char *address = str_printf(ADDRESS_PREFIX "%s", s->socket_path);
    _free_ uint8_t *packed = NULL;
    _free_ char *text = NULL;
    size_t n = 0;

    if (!address ||
        (s->params ? pack_result(address, &packed, &n) < 0 : !(text = format_answer(address))))
        return err_oom(e);
    int r = fs_write_all(STDOUT_FILENO, text ? text : (char *)packed, text ? strlen(text) : n);
    return r < 0 ? err_errno(e, r, "failed to print the address") : 0;
}

int action_start(const struct args *args, struct err *e)
{
    _cleanup_(start_done) struct start s = {
        .args = *args, .listen_fd = -EBADF, .dir_fd = -EBADF, .server = PROC_NULL};

    if (read_request(&s, e) < 0 || address_check_daemon(getenv("TTRPC_ADDRESS"), e) < 0)
        return EXIT_FAILURE;
    int found = make_socket(&s, e);
    if (found < 0)
        return EXIT_FAILURE;
    if ((found == 0 && spawn_server(&s, e) < 0) || print_answer(&s, e) < 0) {
        if (found == 0)
            unlink(s.socket_path);
        if (proc_is_set(&s.server))
            proc_kill(&s.server, SIGKILL);
        return EXIT_FAILURE;
    }
    return 0;
}

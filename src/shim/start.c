/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `start` comes in three generations: task options as an Any on stdin and the address as text on
 * stdout (containerd 1.2 to 2.2; 2.x also takes that), or BootstrapParams on stdin and
 * BootstrapResult on stdout (2.3 on). The latter is known by its first two fields, which repeat -id
 * and -namespace. The daemon reads stderr along with stdout, so nothing else may be printed.
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

#define CONNECT_TIMEOUT_MS 100
#define OOM_SCORE_MAX 1000

struct start {
    const struct args *args;
    bool is_bootstrap;
    char *socket_dir; /* NULL: the usual one */
    char *socket_path;
    struct options options;
    int listen_fd;
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
    free(s->socket_dir);
    free(s->socket_path);
    options_done(&s->options);
    close_fd(&s->listen_fd);
}

/* Options of other types, or that do not parse, concern the Create that follows, not us. */
static void take_options(struct start *s, const Google__Protobuf__Any *any)
{
    if (any && !s->options.shim_cgroup && strstr(any->type_url, "Options"))
        options_decode(any, &s->options, NULL);
}

static bool take_bootstrap(struct start *s, const uint8_t *bytes, size_t n)
{
    Pb__Bootstrap__BootstrapParams *p = pb__bootstrap__bootstrap_params__unpack(NULL, n, bytes);
    bool is_it =
        p && str_eq(p->instance_id, s->args->id) && str_eq(p->namespace_, s->args->namespace_);

    if (is_it) {
        s->is_bootstrap = true;
        for (size_t i = 0; i < p->n_extensions; i++)
            take_options(s, p->extensions[i]->value);
        if (p->socket_dir_present_case ==
                PB__BOOTSTRAP__BOOTSTRAP_PARAMS__SOCKET_DIR_PRESENT_SOCKET_DIR &&
            p->socket_dir[0] == '/')
            s->socket_dir = strdup(p->socket_dir);
        if (!str_empty(p->containerd_ttrpc_address))
            setenv("TTRPC_ADDRESS", p->containerd_ttrpc_address, 0);
    }
    if (p)
        pb__bootstrap__bootstrap_params__free_unpacked(p, NULL);
    return is_it;
}

static int read_request(struct start *s, struct err *e)
{
    _free_ uint8_t *bytes = NULL;
    size_t n = 0;

    int r = action_read_input(ACTION_INPUT_MAX, &bytes, &n);
    if (r < 0)
        return err_errno(e, r, "failed to read the options on stdin");
    if (n == 0 || take_bootstrap(s, bytes, n))
        return 0;
    Google__Protobuf__Any *any = google__protobuf__any__unpack(NULL, n, bytes);
    take_options(s, any);
    if (any)
        google__protobuf__any__free_unpacked(any, NULL);
    return 0;
}

/* 1: a shim serves the group already. */
static int make_socket(struct start *s, struct err *e)
{
    _cleanup_(oci_config_done) struct oci_config config = {};
    const char *dir = s->socket_dir ? s->socket_dir : ADDRESS_DIR;
    _close_ int dir_fd = -EBADF;
    _close_ int connection = -EBADF;

    oci_config_load(".", &config, NULL); /* without one, the container is its own group */
    s->socket_path = address_path(dir, s->args->address, s->args->namespace_,
                                  config.group ? config.group : s->args->id);
    if (!s->socket_path)
        return err_oom(e);
    int r = fs_open_private_dir(dir, 0700, &dir_fd);
    if (r < 0)
        return err_errno(e, r, "failed to make directory %s", dir);
    r = sock_listen(s->socket_path, 0600, SOMAXCONN, &s->listen_fd);
    if (r == -EADDRINUSE && sock_connect(s->socket_path, CONNECT_TIMEOUT_MS, &connection) == 0)
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
    const struct args *a = s->args;
    _cleanup_(proc_done) struct proc p = PROC_NULL;
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
    int r = proc_spawn(&spawn, &p);
    if (r < 0)
        return err_errno(e, r, "failed to start %s", self);
    if (s->options.shim_cgroup) {
        r = cgroup_add_process(s->options.shim_cgroup, p.pid);
        if (r < 0) {
            proc_kill(&p, SIGKILL);
            return err_errno(e, r, "failed to put the shim into control group %.500s",
                             s->options.shim_cgroup);
        }
    }
    set_oom_score(p.pid);
    return 0;
}

static int print_answer(const struct start *s, struct err *e)
{
    Pb__Bootstrap__BootstrapResult result = PB__BOOTSTRAP__BOOTSTRAP_RESULT__INIT;
    _free_ char *address = str_printf(ADDRESS_PREFIX "%s", s->socket_path);
    _free_ uint8_t *packed = NULL;
    int r;

    if (!address)
        return err_oom(e);
    if (s->is_bootstrap) {
        result.version = 3;
        result.address = address;
        result.protocol = (char *)"ttrpc";
        size_t n = pb__bootstrap__bootstrap_result__get_packed_size(&result);
        packed = malloc(n);
        if (!packed)
            return err_oom(e);
        pb__bootstrap__bootstrap_result__pack(&result, packed);
        r = fs_write_all(STDOUT_FILENO, packed, n);
    } else {
        r = fs_write_all(STDOUT_FILENO, address, strlen(address));
    }
    return r < 0 ? err_errno(e, r, "failed to print the address") : 0;
}

int action_start(const struct args *args, struct err *e)
{
    _cleanup_(start_done) struct start s = {.args = args, .listen_fd = -EBADF};

    if (read_request(&s, e) < 0)
        return EXIT_FAILURE;
    int found = make_socket(&s, e);
    if (found < 0)
        return EXIT_FAILURE;
    int r = address_write(".", s.socket_path);
    if (r < 0)
        err_errno(e, r, "failed to write the address into the bundle");
    else if (found == 0)
        r = spawn_server(&s, e);
    if (r < 0 || print_answer(&s, e) < 0) {
        if (found == 0)
            unlink(s.socket_path);
        return EXIT_FAILURE;
    }
    return 0;
}

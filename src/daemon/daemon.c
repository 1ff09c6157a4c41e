/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/daemon.h"

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

#include "base/event.h"
#include "base/fs.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/workq.h"
#include "daemon/holder.h"
#include "daemon/listeners.h"
#include "daemon/no_shim.h"
#include "daemon/notify.h"
#include "daemon/programs.h"
#include "oci/platform.h"
#include "runtime/exchange.h"
#include "runtime/tasks.h"
#include "service/context.h"
#include "service/events_ttrpc.h"
#include "service/plugins.h"
#include "store/content.h"
#include "store/db.h"
#include "store/gc.h"
#include "store/snapshots.h"
#include "wire/grpc_server.h"
#include "wire/ttrpc_server.h"

/* Each call that waits for a runtime (Create, Delete) holds one; those that hang must leave some to
 * others. They exist only while they are needed. */
#define POOL_THREADS 256
#define OPEN_FILES 65536
#define GRACE_MS 5000 /* for calls under way when the daemon is told to end */

struct daemon {
    const struct config *config;
    int root_holder_fd, state_holder_fd;
    struct programs programs;
    struct rlimit open_files; /* as we were started; for shims */
    struct event_loop loop;
    struct workq *pool;
    struct db *db;
    struct content_store *content;
    struct snapshotters *snapshotters;
    struct gc *gc;
    struct exchange *exchange;
    struct no_shim no_shim;
    struct tasks *tasks;
    struct platform *platforms;
    struct service_context context;
    struct grpc_service services[12];
    size_t n_services;
    struct grpc_server *grpc;
    struct ttrpc_server *ttrpc;
    struct event_fd signals;
    struct event_timer grace;
};

static void on_signal(struct event_fd *source, uint32_t events)
{
    struct daemon *d = container_of(source, struct daemon, signals);
    struct signalfd_siginfo info;

    while (event_signal_read(source->fd, &info) == 1) {
        if (info.ssi_signo != SIGTERM && info.ssi_signo != SIGINT)
            continue;
        log_info("ending on signal %s", info.ssi_signo == SIGTERM ? "TERM" : "INT");
        notify_send("STOPPING=1");
        event_loop_quit(&d->loop, 0);
    }
}

/* Signals come as reads of an fd; what others would end us by is ignored. Before any thread starts.
 */
static int setup_signals(struct daemon *d, struct err *e)
{
    static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGIO};
    sigset_t mask;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_SIZE(handled); i++)
        sigaddset(&mask, handled[i]);
    int fd = event_signal_fd(&mask);
    int r = fd < 0 ? fd : event_fd_add(&d->loop, &d->signals, fd, EPOLLIN, on_signal);
    return r < 0 ? err_errno(e, r, "take signals") : 0;
}

/* Directories, with the modes they must have even if somebody made them before, and the locks in
 * them. */
static int setup_directories(struct daemon *d, struct err *e)
{
    const struct config *c = d->config;
    _close_ int root_fd = -EBADF;
    _close_ int state_fd = -EBADF;

    int r = fs_open_private_dir(c->root, 0700, &root_fd);
    if (r < 0)
        return err_errno(e, r, "open root directory %s", c->root);
    r = fs_open_private_dir(c->state, 0711, &state_fd);
    if (r < 0)
        return err_errno(e, r, "open state directory %s", c->state);
    r = holder_acquire(c->root, "root", &d->root_holder_fd, e);
    if (r >= 0)
        r = holder_acquire(c->state, "state", &d->state_holder_fd, e);
    return r;
}

/* A task takes five descriptors, which the usual limit of 1024 does not go far with. More than what
 * an unprivileged process may take anyway is worth a try. */
static void raise_open_files(struct rlimit *ret_before)
{
    if (getrlimit(RLIMIT_NOFILE, ret_before) < 0)
        *ret_before = (struct rlimit){1024, 4096};
    const struct rlimit most = {OPEN_FILES, MAX_OF(ret_before->rlim_max, (rlim_t)OPEN_FILES)};
    const struct rlimit allowed = {ret_before->rlim_max, ret_before->rlim_max};

    if (ret_before->rlim_cur < OPEN_FILES && setrlimit(RLIMIT_NOFILE, &most) < 0 &&
        setrlimit(RLIMIT_NOFILE, &allowed) < 0)
        log_warn("raise the limit of open files: %s", err_strerror(errno));
}

static int setup_process(const struct config *c)
{
    char text[16];
    int n = snprintf(text, sizeof(text), "%d", (int)c->oom_score);

    /* Children that lose their parent are the shims' affair, or no_shim's; nobody may trace us or read our
     * memory. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    umask(0022);
    if (c->oom_score == 0)
        return 0;
    _close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        return -errno;
    return 0;
}

static bool is_disabled(const struct config *c, const char *plugin)
{
    for (char **p = c->disabled_plugins; p && *p; p++)
        if (str_eq(*p, plugin))
            return true;
    return false;
}

static int setup_store(struct daemon *d, struct err *e)
{
    const struct config *c = d->config;
    _free_ char *metadata_dir = str_printf("%s/io.containerd.metadata.v1.bolt", c->root);
    _free_ char *db_path = str_printf("%s/io.containerd.metadata.v1.bolt/meta.sqlite", c->root);
    _free_ char *content_dir = str_printf("%s/io.containerd.content.v1.content", c->root);
    struct gc_options gc = {
        .pause_threshold = c->gc_pause_threshold,
        .deletion_threshold = c->gc_deletion_threshold,
        .mutation_threshold = c->gc_mutation_threshold,
        .schedule_delay_ms = c->gc_schedule_delay_ms,
        .startup_delay_ms = c->gc_startup_delay_ms,
    };
    struct snapshotters_options snapshots = {
        .overlay_root = c->overlay_root_path,
        .native_root = c->native_root_path,
        .overlay_mount_options = c->overlay_mount_options,
        .overlay_upperdir_label = c->overlay_upperdir_label,
        .overlay_sync_remove = c->overlay_sync_remove,
        .overlay_disabled = is_disabled(c, "io.containerd.snapshotter.v1.overlayfs"),
        .native_disabled = is_disabled(c, "io.containerd.snapshotter.v1.native"),
    };

    if (!metadata_dir || !db_path || !content_dir)
        return err_oom(e);
    int r = fs_mkdir_p(AT_FDCWD, metadata_dir, 0700);
    if (r < 0)
        return err_errno(e, r, "make directory %s", metadata_dir);
    r = db_open(db_path, &d->db, e);
    if (r >= 0)
        r = content_store_new(content_dir, d->db,
                              str_eq(c->content_sharing_policy, "isolated") ? CONTENT_ISOLATED
                                                                            : CONTENT_SHARED,
                              &d->content, e);
    if (r >= 0)
        r = snapshotters_new(c->root, &snapshots, d->db, &d->snapshotters, e);
    if (r >= 0)
        r = gc_new(&d->loop, d->pool, d->db, d->content, d->snapshotters, &gc, &d->gc, e);
    return r;
}

static int setup_runtime(struct daemon *d, struct err *e)
{
    const struct config *c = d->config;
    struct tasks_options options = {
        .root = c->root,
        .state = c->state,
        .host =
            {
                .grpc_address = c->grpc_address,
                .ttrpc_address = c->ttrpc_address,
                .daemon_binary = d->programs.daemon,
                .socket_dir = c->shim_socket_dir,
                .debug = log_get_level() <= LOG_DEBUG,
                .open_files = d->open_files,
                .load_timeout_ms = c->shim_load_timeout_ms,
                .cleanup_timeout_ms = c->shim_cleanup_timeout_ms,
            },
        .own_shim = d->programs.shim,
        .shim = c->shim,
        .oci_runtime = c->oci_runtime,
        .daemon_dir = d->programs.dir,
        .shutdown_timeout_ms = c->shim_shutdown_timeout_ms,
        .linux_v1 =
            {
                .is_disabled = is_disabled(c, LINUX_RUNTIME_NAME),
                .shim = c->linux_shim,
                .runtime = c->linux_runtime,
                .runtime_root = c->linux_runtime_root,
                .shim_debug = c->linux_shim_debug,
                .no_shim = c->linux_no_shim ? &d->no_shim.door : NULL,
            },
    };

    int r = exchange_new(&d->exchange);
    if (r < 0)
        return err_errno(e, r, "make event exchange");
    d->no_shim.exchange = d->exchange;
    return tasks_new(&d->loop, d->pool, d->exchange, &options, &d->tasks, e);
}

/* Those of the configuration, which the services borrow. */
static int setup_platforms(struct daemon *d, size_t *ret_n, struct err *e)
{
    size_t n = strv_len(d->config->platforms);
    int r = 0;

    d->platforms = calloc(n + 1, sizeof(*d->platforms));
    if (!d->platforms)
        return err_oom(e);
    for (size_t i = 0; i < n && r >= 0; i++)
        r = platform_parse(d->config->platforms[i], &d->platforms[i], e);
    if (r < 0)
        return err_wrap(e, "read platforms of io.containerd.runtime.v2.task");
    *ret_n = n;
    return 0;
}

static int setup_context(struct daemon *d, struct err *e)
{
    size_t n_platforms = 0;
    int r = setup_platforms(d, &n_platforms, e);

    if (r < 0)
        return r;
    d->context = (struct service_context){
        .loop = &d->loop,
        .pool = d->pool,
        .db = d->db,
        .content = d->content,
        .snapshotters = d->snapshotters,
        .gc = d->gc,
        .exchange = d->exchange,
        .tasks = d->tasks,
        .root = d->config->root,
        .state = d->config->state,
        .worker_path = d->programs.worker,
        .version = WHERRY_VERSION,
        .revision = "",
        .state_timeout_ms = d->config->task_state_timeout_ms,
        .disabled_plugins = d->config->disabled_plugins,
        .differs = d->config->differs,
        .platforms = d->platforms,
        .n_platforms = n_platforms,
    };
    return 0;
}

/* What the configuration leaves out, wants in vain, or cannot do without. */
static int check_plugins(struct daemon *d, struct err *e)
{
    const struct config *c = d->config;
    _cleanup_(strv_freep) char **warnings = NULL;
    int r = plugins_check(&d->context, c->required_plugins, &warnings, e);

    for (char **w = warnings; w && *w; w++)
        log_warn("%s", *w);
    return r;
}

static int setup_services(struct daemon *d, struct err *e)
{
    static void (*const inits[])(struct grpc_service *, struct service_context *) = {
        containers_service_init,    content_service_init, diff_service_init,
        events_service_init,        health_service_init,  images_service_init,
        introspection_service_init, leases_service_init,  namespaces_service_init,
        snapshots_service_init,     tasks_service_init,   version_service_init,
    };
    _Static_assert(ARRAY_SIZE(inits) == ARRAY_SIZE(((struct daemon *)0)->services), "a slot each");
    struct grpc_server_options options = {
        .pool = d->pool,
        .max_recv_message = d->config->max_recv_message_bytes,
        .max_send_message = d->config->max_send_message_bytes,
    };

    for (size_t i = 0; i < ARRAY_SIZE(inits); i++) {
        struct grpc_service *service = &d->services[d->n_services];
        inits[i](service, &d->context);
        if (!plugin_service_skipped(&d->context, service->name))
            d->n_services++;
    }
    return grpc_server_new(&d->loop, &options, d->services, d->n_services, &d->grpc, e);
}

static int setup_listeners(struct daemon *d, struct err *e)
{
    const struct config *c = d->config;
    int fd = -EBADF;

    int r = listener_open(c->grpc_address, c->grpc_uid, c->grpc_gid, &fd, e);
    if (r >= 0 && (r = grpc_server_listen(d->grpc, fd, e)) < 0)
        close(fd);
    if (r < 0)
        return r;
    r = listener_open(c->ttrpc_address, c->ttrpc_uid, c->ttrpc_gid, &fd, e);
    if (r >= 0 && (r = ttrpc_server_new(&d->loop, fd, &events_ttrpc_service, 1, &d->context,
                                        &d->ttrpc, e)) < 0)
        close(fd);
    return r;
}

/* On the last thread of the pool, when there has been nothing to do for a while. */
static void give_memory_back(void *userdata)
{
    struct daemon *d = userdata;

    db_release_memory(d->db);
    malloc_trim(0);
}

static int setup(struct daemon *d, struct err *e)
{
    int r = setup_signals(d, e);
    if (r >= 0)
        r = setup_directories(d, e);
    if (r >= 0)
        r = programs_find(&d->programs, e);
    if (r >= 0)
        raise_open_files(&d->open_files);
    if (r >= 0 && (r = setup_process(d->config)) < 0)
        err_errno(e, r, "set OOM score %d", (int)d->config->oom_score);
    if (r >= 0 && d->config->linux_no_shim)
        r = no_shim_init(&d->no_shim, e);
    if (r >= 0 && (r = event_loop_enable_posts(&d->loop)) < 0)
        err_errno(e, r, "make event loop");
    if (r >= 0 && (r = workq_new(POOL_THREADS, &d->pool)) < 0)
        err_errno(e, r, "make thread pool");
    if (r >= 0)
        workq_on_idle(d->pool, give_memory_back, d);
    if (r >= 0)
        r = setup_store(d, e);
    if (r >= 0)
        r = setup_runtime(d, e);
    if (r >= 0)
        r = setup_context(d, e);
    if (r >= 0)
        r = check_plugins(d, e);
    if (r >= 0)
        r = setup_services(d, e);
    /* Sockets first: clients connect while shims are being found again, and wait only for their
     * own. */
    if (r >= 0)
        r = setup_listeners(d, e);
    if (r >= 0)
        r = tasks_recover(d->tasks, e);
    return r;
}

struct pool_end {
    struct daemon *daemon;
    struct event_post post;
    bool done;
};

static void pool_ended(struct event_post *post)
{
    container_of(post, struct pool_end, post)->done = true;
}

static void *pool_end_run(void *arg)
{
    struct pool_end *end = arg;

    workq_end(end->daemon->pool);
    event_loop_post(&end->daemon->loop, &end->post, pool_ended);
    return NULL;
}

/* A shim that hangs must not keep the daemon from ending. */
static void grace_is_over(struct event_timer *timer)
{
    struct daemon *d = container_of(timer, struct daemon, grace);

    log_warn("ending without the answers of shims that are still awaited");
    tasks_detach(d->tasks);
}

/* Running jobs may wait for answers that only the loop can bring them, so it turns until they are
 * done. */
static void end_pool(struct daemon *d)
{
    struct pool_end end = {.daemon = d};
    pthread_t thread;

    if (!d->pool || pthread_create(&thread, NULL, pool_end_run, &end) != 0)
        return;
    if (d->tasks)
        event_timer_arm(&d->loop, &d->grace, GRACE_MS, grace_is_over);
    while (!end.done && event_loop_turn(&d->loop, -1) >= 0)
        ;
    event_timer_disarm(&d->grace);
    pthread_join(thread, NULL);
}

static void teardown(struct daemon *d)
{
    if (d->grpc)
        grpc_server_shutdown(d->grpc);
    if (d->gc)
        gc_stop(d->gc);
    end_pool(d);
    if (d->no_shim.shims) {
        no_shim_done(&d->no_shim);
        /* Who waits for an answer of what has ended gets it while it can be passed on. */
        if (d->tasks)
            tasks_detach(d->tasks);
    }
    d->ttrpc = ttrpc_server_free(d->ttrpc);
    d->grpc = grpc_server_free(d->grpc);
    d->tasks = tasks_free(d->tasks);
    d->exchange = exchange_free(d->exchange);
    d->gc = gc_free(d->gc);
    d->snapshotters = snapshotters_free(d->snapshotters);
    d->content = content_store_free(d->content);
    d->db = db_close(d->db);
    d->pool = workq_free(d->pool);
    programs_done(&d->programs);
    free(d->platforms);
    /* What was posted last (freed shims) is still to run. */
    if (d->loop.wake_fd >= 0)
        event_loop_turn(&d->loop, 0);
    int signal_fd = d->signals.loop ? d->signals.fd : -EBADF;
    event_fd_remove(&d->signals);
    close_fd(&signal_fd);
    event_loop_done(&d->loop);
    close_fd(&d->root_holder_fd);
    close_fd(&d->state_holder_fd);
}

int daemon_run(const struct config *config, struct err *e)
{
    struct daemon d = {.config = config, .root_holder_fd = -EBADF, .state_holder_fd = -EBADF};

    int r = event_loop_init(&d.loop);
    if (r < 0)
        return err_errno(e, r, "make event loop");
    r = setup(&d, e);
    if (r >= 0) {
        /* The commit point: from here on a request may be refused, the process goes on. */
        log_info("wherryd " WHERRY_VERSION " serves on %s", config->grpc_address);
        notify_send("READY=1");
        r = event_loop_run(&d.loop);
        if (r < 0)
            err_errno(e, r, "run event loop");
    }
    teardown(&d);
    if (r >= 0) {
        unlink(config->grpc_address);
        unlink(config->ttrpc_address);
    }
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/un.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "shim/actions.h"
#include "shim/address.h"
#include "shim/container.h"
#include "shim/container_end.h"
#include "shim/forward.h"
#include "shim/publish_binary.h"
#include "shim/sandbox.h"
#include "shim/sandbox_service.h"
#include "shim/shim_service.h"

#define LISTEN_FD 3
/* After Shutdown: for the last answers and events to leave. */
#define QUIT_TIMEOUT_MS 5000
#define TERMINATE_TIMEOUT_MS 10000
/* A shim nobody gives a container to, or takes the last one from without saying Shutdown, is one
 * whose daemon was killed at that moment. */
#define LONELY_TIMEOUT_MS 120000

struct serving {
    struct shim shim;
    struct event_loop loop;
    struct reaper reaper;
    struct publisher *publisher;
    struct task_service service;
    struct ttrpc_service services[TASK_SERVICES + 1];
    struct forward forward;
    struct publish_binary binary;
    struct ttrpc_server *server;
    struct event_fd signals;
    struct event_timer quit_timer;
    struct event_timer lonely_timer;
    int signal_fd;
    char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
    bool is_quitting;
    bool is_terminating; /* SIGTERM came, and takes the containers along */
};

/* The daemon reads our log from a fifo: "log" in the bundle, or with runtime v1 the one that is our
 * standard output. Opened for both directions it neither waits for the daemon nor breaks when that
 * restarts; lines it cannot take are dropped. */
static void open_log(bool v1)
{
    struct stat st;
    const char *path = v1 ? "/proc/self/fd/1" : "log";
    int flags = O_RDWR | O_NONBLOCK | O_CLOEXEC | (v1 ? 0 : O_NOFOLLOW);
    _close_ int fd = open(path, flags);
    _close_ int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int i = 0; i < 3 && null_fd >= 0; i++)
        dup2(null_fd, i);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode)) {
        log_set_level(LOG_FATAL);
        return;
    }
    dup2(fd, STDERR_FILENO);
    log_set_fd(STDERR_FILENO);
}

static int take_listener(struct serving *s, const struct args *args, int *ret, struct err *e)
{
    struct sockaddr_un address = {};
    socklen_t size = sizeof(address);
    _close_ int fd = -EBADF;

    if (!str_empty(args->socket)) {
        int r = sock_listen(address_to_path(args->socket), 0600, SOMAXCONN, &fd);
        if (r < 0)
            return err_errno(e, r, "failed to listen on %.200s", args->socket);
    } else {
        fd = LISTEN_FD;
        int r = fs_set_nonblock(fd, true);
        if (r == 0)
            r = neg_errno(fcntl(fd, F_SETFD, FD_CLOEXEC));
        if (r < 0)
            return err_errno(e, r,
                             "no listening socket on fd %d, where the process that starts a shim "
                             "leaves it",
                             LISTEN_FD);
    }
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return err_errno(e, -errno, "no listening socket on fd %d", fd);
    if (address.sun_family == AF_UNIX && size > sizeof(sa_family_t))
        snprintf(s->socket_path, sizeof(s->socket_path), "%.*s", (int)(size - sizeof(sa_family_t)),
                 address.sun_path);
    *ret = TAKE_FD(fd);
    return 0;
}

static void try_to_quit(struct serving *s)
{
    if (!s->is_quitting)
        return;
    if (!shim_is_empty(&s->shim)) { /* somebody was faster: stay for it */
        s->is_quitting = false;
        event_timer_disarm(&s->quit_timer);
        return;
    }
    /* Go's clients may lose an answer that the end of the connection comes with. For Shutdown of
     * tasks daemons are prepared for that. */
    if (s->shim.is_leaving && ttrpc_server_has_connections(s->server))
        return;
    if (ttrpc_server_is_flushed(s->server) && publisher_is_empty(s->publisher))
        event_loop_quit(&s->loop, 0);
}

static void on_flushed(void *userdata)
{
    struct task_service *service = userdata;

    try_to_quit(container_of(service, struct serving, service));
}

static void on_published(void *userdata)
{
    try_to_quit(userdata);
}

static void on_quit_timeout(struct event_timer *timer)
{
    struct serving *s = container_of(timer, struct serving, quit_timer);

    if (shim_is_empty(&s->shim))
        event_loop_quit(&s->loop, 0);
}

static void on_quit_now(struct event_timer *timer)
{
    struct serving *s = container_of(timer, struct serving, quit_timer);

    event_timer_arm(&s->loop, timer, QUIT_TIMEOUT_MS, on_quit_timeout);
    try_to_quit(s);
}

static void on_shutdown(struct task_service *service)
{
    struct serving *s = container_of(service, struct serving, service);

    if (s->is_quitting)
        return;
    s->is_quitting = true;
    /* From the loop, so that the answer to Shutdown is on its way. */
    event_timer_arm(&s->loop, &s->quit_timer, 0, on_quit_now);
}

static void on_lonely(struct event_timer *timer)
{
    struct serving *s = container_of(timer, struct serving, lonely_timer);

    log_info("no container for %d seconds, and none left: leaving", LONELY_TIMEOUT_MS / 1000);
    on_shutdown(&s->service);
}

static void on_publish(struct shim *shim, const char *topic, const ProtobufCMessage *event)
{
    publisher_publish(container_of(shim, struct serving, shim)->publisher, topic, event);
}

static void on_changed(struct shim *shim)
{
    struct serving *s = container_of(shim, struct serving, shim);

    if (s->is_terminating && shim->containers.n == 0 && shim->sandbox) {
        sandbox_shut_down(shim->sandbox); /* which comes here again */
        return;
    }
    if (shim_is_empty(shim) && (s->is_terminating || shim->is_leaving))
        on_shutdown(&s->service);
    if (!shim_is_empty(shim))
        event_timer_disarm(&s->lonely_timer);
    else
        event_timer_arm(shim->loop, &s->lonely_timer, LONELY_TIMEOUT_MS, on_lonely);
}

static struct container *first_container(const struct shim *shim)
{
    MAP_FOREACH (entry, &shim->containers)
        return entry->value;
    return NULL;
}

static void on_terminate_timeout(struct event_timer *timer)
{
    struct serving *s = container_of(timer, struct serving, quit_timer);

    MAP_FOREACH (entry, &s->shim.containers)
        container_abandon(entry->value);
    event_loop_quit(&s->loop, 0);
}

/* The shim takes its containers along. */
static void terminate(struct serving *s)
{
    if (s->is_terminating)
        return;
    s->is_terminating = true;
    if (s->shim.containers.n == 0) {
        on_changed(&s->shim);
        return;
    }
    event_timer_arm(&s->loop, &s->quit_timer, TERMINATE_TIMEOUT_MS, on_terminate_timeout);
    containers_end(&s->shim);
}

/* Without a bundle no daemon finds a container again. */
static bool are_bundles_lost(const struct shim *shim)
{
    MAP_FOREACH (entry, &shim->containers) {
        const struct container *c = entry->value;
        if (fs_exists(AT_FDCWD, c->bundle))
            return false;
    }
    return shim->containers.n > 0;
}

/* SIGTERM. With runtime v1 it means the container too. Otherwise containers run on, and the daemon
 * finds us gone and cleans up; unless there is nothing left by which it could. */
static void leave(struct serving *s, unsigned signal)
{
    if (s->shim.v1 || are_bundles_lost(&s->shim)) {
        log_info("signal %u: ending all containers and leaving", signal);
        terminate(s);
    } else {
        log_info("signal %u: leaving", signal);
        event_loop_quit(&s->loop, 0);
    }
}

static void log_process(const struct process *p)
{
    static const char *const states[] = {
        [PROCESS_CREATING] = "being created", [PROCESS_CREATED] = "created",
        [PROCESS_RUNNING] = "running",        [PROCESS_PAUSING] = "being paused",
        [PROCESS_PAUSED] = "paused",          [PROCESS_STOPPED] = "stopped",
        [PROCESS_DELETED] = "deleted",
    };

    log_info("process %s%s%s: %s, pid %d, %zu waiters%s%s", p->container->id, p->exec_id ? " " : "",
             str_or_empty(p->exec_id), states[p->state], (int)p->exit.pid, p->n_waiters,
             p->current ? ", in an operation" : "",
             p->has_ended && p->state < PROCESS_STOPPED ? ", its end is held back" : "");
}

/* What Go's shims do with a dump of their stacks: for whoever wonders why one hangs. */
static void log_state(const struct serving *s)
{
    log_info("%zu containers, %s sandbox%s%s, %s", s->shim.containers.n,
             s->shim.sandbox ? "in" : "no", s->shim.sandbox ? " " : "",
             s->shim.sandbox ? s->shim.sandbox->id : "",
             publisher_is_empty(s->publisher) ? "no event waits" : "events wait");
    MAP_FOREACH (entry, &s->shim.containers) {
        const struct container *c = entry->value;
        log_process(c->init);
        MAP_FOREACH (exec, &c->execs)
            log_process(exec->value);
    }
}

static void on_signal(struct event_fd *source, _unused_ uint32_t events)
{
    struct serving *s = container_of(source, struct serving, signals);
    struct signalfd_siginfo info;

    while (event_signal_read(source->fd, &info) > 0) {
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
            leave(s, info.ssi_signo);
        else if (info.ssi_signo == SIGUSR1)
            log_state(s);
    }
    reaper_collect(&s->reaper);
}

/* All that could end us: SIGXFSZ comes with a log file that reaches the limit on its size, of which
 * the write tells us as well. */
static int watch_signals(struct serving *s)
{
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT,  SIGHUP,   SIGPIPE,
                                  SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGXFSZ};
    sigset_t mask;

    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        sigaddset(&mask, numbers[i]);
    s->signal_fd = event_signal_fd(&mask);
    if (s->signal_fd < 0)
        return s->signal_fd;
    return event_fd_add(&s->loop, &s->signals, s->signal_fd, EPOLLIN, on_signal);
}

/* What a container or the OCI runtime must not inherit from whoever started us. */
static int set_up_process(void)
{
    for (const char *const *name = runtime_hidden_variables; *name; name++)
        unsetenv(*name);
    umask(0022);
    /* Freed memory goes back at once, and big buffers never enter the heap. */
    mallopt(M_TRIM_THRESHOLD, 0);
    mallopt(M_TOP_PAD, 0);
    mallopt(M_MMAP_THRESHOLD, 32 * 1024);
    return neg_errno(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}

/* On failure, too, serving_free() is to follow. */
static int set_up(struct serving *s, const struct args *args, bool v1, struct err *e)
{
    struct shim *shim = &s->shim;
    const char *ttrpc_address = getenv("TTRPC_ADDRESS");
    int listen_fd = -EBADF;

    int r = event_loop_init(&s->loop);
    reaper_init(&s->reaper, &s->loop);
    list_init(&shim->alive);
    if (r == 0)
        r = set_up_process();
    if (r < 0)
        return err_errno(e, r, "failed to set up the shim");
    if (!v1 && address_check_daemon(ttrpc_address, e) < 0)
        return ERR_RETURN;
    shim->loop = &s->loop;
    shim->reaper = &s->reaper;
    shim->publish = on_publish;
    shim->namespace_ = args->namespace_;
    shim->debug = args->debug;
    shim->v1 = v1;
    shim->runtime_root = str_empty(args->runtime_root) ? NULL : args->runtime_root;
    shim->criu = args->criu;
    shim->systemd_cgroup = args->systemd_cgroup;
    shim->changed = on_changed;
    s->forward = (struct forward){
        .loop = &s->loop,
        .path = ttrpc_address ? address_to_path(ttrpc_address) : "",
        .namespace_ = args->namespace_,
    };
    publish_binary_init(&s->binary, &s->reaper, args->publish_binary, args->address,
                        args->namespace_);
    s->service = (struct task_service){.shim = shim, .shutdown = on_shutdown};
    bool by_binary = v1 || str_empty(ttrpc_address);
    r = publisher_new(shim->loop, shim->namespace_,
                      by_binary ? &publish_binary_transport : &forward_transport,
                      by_binary ? (void *)&s->binary : (void *)&s->forward, &s->publisher);
    if (r == 0)
        r = watch_signals(s);
    if (r < 0)
        return err_errno(e, r, "failed to set up the shim");
    if (take_listener(s, args, &listen_fd, e) < 0)
        return ERR_RETURN;
    memcpy(s->services, task_services, sizeof(task_services));
    s->services[TASK_SERVICES] = sandbox_service;
    if (ttrpc_server_new(&s->loop, listen_fd, v1 ? &shim_service : s->services,
                         v1 ? 1 : ARRAY_SIZE(s->services), &s->service, &s->server, e) < 0) {
        close(listen_fd);
        return ERR_RETURN;
    }
    ttrpc_server_on_flushed(s->server, on_flushed);
    publisher_on_empty(s->publisher, on_published, s);
    event_timer_arm(shim->loop, &s->lonely_timer, LONELY_TIMEOUT_MS, on_lonely);
    return 0;
}

static void serving_free(struct serving *s)
{
    ttrpc_server_free(s->server);
    sandbox_leave(s->shim.sandbox);
    for (struct container *c; (c = first_container(&s->shim));)
        container_forget(c); /* it runs on */
    forward_done(&s->forward);
    s->publisher = publisher_free(s->publisher);
    reaper_done(&s->reaper);
    map_done(&s->shim.containers);
    event_fd_remove(&s->signals);
    close_fd(&s->signal_fd);
    event_loop_done(&s->loop);
    free(s);
}

int action_serve(const struct args *args, bool v1, struct err *e)
{
    struct serving *s = calloc(1, sizeof(*s));

    if (!s) {
        err_oom(e);
        return EXIT_FAILURE;
    }
    s->signal_fd = -EBADF;
    if (args->debug)
        log_set_level(LOG_DEBUG);
    _close_ int stderr_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, LISTEN_FD + 1);
    open_log(v1);
    if (set_up(s, args, v1, e) < 0) {
        log_error("%s", e->msg);
        dup2(stderr_fd, STDERR_FILENO); /* for who has started this by hand */
        serving_free(s);
        return EXIT_FAILURE;
    }
    close_fd(&stderr_fd);

    /* The commit point: containers depend on this process from here on. What fails below refuses a
     * request; nothing below ends the process but Shutdown, loneliness and SIGTERM. */
    int r = event_loop_run(&s->loop);

    if (r < 0)
        log_error("the event loop has failed: %s", err_strerror(r));
    if (s->socket_path[0])
        unlink(s->socket_path);
    serving_free(s);
    return r < 0 ? EXIT_FAILURE : r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/local.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/orphans.h"
#include "base/rendezvous.h"
#include "base/str.h"
#include "shim/container.h"
#include "shim/shim_service.h"

/* Of address space: a JSON document may be nested 2048 deep, and is read recursively. */
#define STACK_BYTES (4 * 1024 * 1024)
/* Killed programs are gone in no time, unless the kernel does not let them go. */
#define END_TIMEOUT_MS 5000

struct local_shims {
    struct event_loop loop;
    struct reaper reaper;
    struct event_fd signals; /* SIGCHLD */
    int signal_fd;
    pthread_t thread;
    char **environment;
    local_shims_publish_fn publish;
    void *userdata;
    struct list shims;
    bool is_ending;
    struct event_timer end_timer;
    struct event_post end;
    struct event_post look; /* for orphans, posted while is_looking */
    atomic_bool is_looking;
};

struct local_shim {
    struct list link;
    struct local_shims *owner;
    struct shim shim;
    struct task_service service;
    struct ttrpc_server *server;
    char *namespace_, *runtime_root, *criu;
    bool is_ending;
    struct event_timer sweep_timer;
    struct event_timer end_timer;
    struct rendezvous *waiter; /* for the end, or NULL */
};

/* One. */

static struct local_shim *local_shim_of(struct shim *shim)
{
    return container_of(shim, struct local_shim, shim);
}

static void on_publish(struct shim *shim, const char *topic, const ProtobufCMessage *event)
{
    const struct local_shim *l = local_shim_of(shim);

    if (!l->is_ending)
        l->owner->publish(l->owner->userdata, l->namespace_, topic, event);
}

static void on_changed(struct shim *shim)
{
}

static void answer_waiter(struct local_shim *l)
{
    struct rendezvous *waiter = l->waiter;

    l->waiter = NULL;
    if (waiter)
        rendezvous_signal(waiter);
}

static void local_shim_free(struct local_shim *l)
{
    struct local_shims *owner = l->owner;

    event_timer_disarm(&l->sweep_timer);
    event_timer_disarm(&l->end_timer);
    ttrpc_server_free(l->server);
    map_done(&l->shim.containers);
    list_remove(&l->link);
    answer_waiter(l);
    free(l->namespace_);
    free(l->runtime_root);
    free(l->criu);
    free(l);
    if (owner->is_ending && list_is_empty(&owner->shims))
        event_loop_quit(&owner->loop, 0);
}

/* Drops containers that nothing is being done to, and with the last one the service. */
static void sweep(struct event_timer *timer)
{
    struct local_shim *l = container_of(timer, struct local_shim, sweep_timer);

    MAP_FOREACH (entry, &l->shim.containers) {
        struct container *c = entry->value;
        if (c->n_ops == 0)
            container_forget(c);
    }
    if (list_is_empty(&l->shim.alive))
        local_shim_free(l);
}

static void on_idle(struct shim *shim)
{
    struct local_shim *l = local_shim_of(shim);

    /* From the loop: the caller is not through with what has become idle. */
    if (l->is_ending)
        event_timer_arm(shim->loop, &l->sweep_timer, 0, sweep);
}

static void begin_end(struct local_shim *l)
{
    struct container *c;

    if (l->is_ending)
        return;
    l->is_ending = true;
    l->server = ttrpc_server_free(l->server);
    LIST_FOREACH (c, &l->shim.alive, link)
        container_cut_short(c);
    event_timer_arm(l->shim.loop, &l->sweep_timer, 0, sweep);
}

struct end_job {
    struct event_post post;
    struct rendezvous meet;
    struct local_shim *shim;
};

static void on_end_timeout(struct event_timer *timer)
{
    struct local_shim *l = container_of(timer, struct local_shim, end_timer);

    log_warn("a container of namespace %s without shim: the OCI runtime does not end",
             l->namespace_);
    answer_waiter(l);
}

static void end_run(struct event_post *post)
{
    struct end_job *job = container_of(post, struct end_job, post);
    struct local_shim *l = job->shim;

    l->waiter = &job->meet;
    event_timer_arm(l->shim.loop, &l->end_timer, END_TIMEOUT_MS, on_end_timeout);
    begin_end(l);
}

void local_shim_end(struct local_shim *shim)
{
    struct end_job job = {.meet = RENDEZVOUS_INIT, .shim = shim};

    event_loop_post(&shim->owner->loop, &job.post, end_run);
    rendezvous_wait(&job.meet);
}

struct new_job {
    struct local_shims *owner;
    const struct local_shim_options *options;
    struct local_shim *shim;
    int fd;
    struct err *err;
    int result;
};

static int connect_pair(struct local_shim *l, int *ret_fd, struct err *e)
{
    int fds[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
        return err_errno(e, -errno, "make a connection without shim");
    _close_ int ours = fds[0];
    _close_ int theirs = fds[1];
    int r = ttrpc_server_new(l->shim.loop, -EBADF, &shim_service, 1, &l->service, &l->server, e);
    if (r >= 0)
        r = ttrpc_server_add(l->server, ours, e);
    if (r < 0)
        return r;
    (void)TAKE_FD(ours);
    *ret_fd = TAKE_FD(theirs);
    return 0;
}

static void new_run(void *arg)
{
    struct new_job *job = arg;
    struct local_shims *owner = job->owner;
    const struct local_shim_options *options = job->options;
    struct local_shim *l = calloc(1, sizeof(*l));

    if (!l) {
        job->result = err_oom(job->err);
        return;
    }
    *l = (struct local_shim){
        .owner = owner,
        .namespace_ = strdup(options->namespace_),
        .runtime_root = strdup(options->runtime_root),
        .criu = strdup(options->criu),
    };
    l->shim = (struct shim){
        .loop = &owner->loop,
        .reaper = &owner->reaper,
        .namespace_ = l->namespace_,
        .environment = owner->environment,
        .runtime_root = l->runtime_root,
        .criu = l->criu,
        .systemd_cgroup = options->systemd_cgroup,
        .debug = options->debug,
        .v1 = true,
        .publish = on_publish,
        .changed = on_changed,
        .idle = on_idle,
    };
    list_init(&l->shim.alive);
    l->service.shim = &l->shim;
    list_push_back(&owner->shims, &l->link);
    bool ok = l->namespace_ && l->runtime_root && l->criu;
    job->result = ok ? connect_pair(l, &job->fd, job->err) : err_oom(job->err);
    if (job->result < 0)
        local_shim_free(l);
    else
        job->shim = l;
}

int local_shim_new(struct local_shims *l, const struct local_shim_options *options,
                   struct local_shim **ret, int *ret_fd, struct err *e)
{
    struct new_job job = {.owner = l, .options = options, .err = e};

    loop_run(&l->loop, new_run, &job);
    if (job.result < 0)
        return job.result;
    *ret = job.shim;
    *ret_fd = job.fd;
    return 0;
}

/* All. */

static void on_signal(struct event_fd *source, _unused_ uint32_t events)
{
    struct local_shims *l = container_of(source, struct local_shims, signals);
    struct signalfd_siginfo info;

    while (event_signal_read(source->fd, &info) == 1)
        ;
    reaper_collect(&l->reaper);
}

static void look(struct event_post *post)
{
    struct local_shims *l = container_of(post, struct local_shims, look);

    atomic_store(&l->is_looking, false);
    reaper_collect(&l->reaper);
}

static void on_settled(void *userdata)
{
    struct local_shims *l = userdata;

    if (!atomic_exchange(&l->is_looking, true))
        event_loop_post(&l->loop, &l->look, look);
}

static int make_environment(struct local_shims *l)
{
    for (char **v = environ; *v; v++) {
        bool hidden = false;
        for (const char *const *name = runtime_hidden_variables; *name && !hidden; name++) {
            const char *rest = str_after_prefix(*v, *name);
            hidden = rest && *rest == '=';
        }
        if (!hidden && strv_push(&l->environment, *v) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int watch_children(struct local_shims *l)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    l->signal_fd = event_signal_fd(&mask);
    if (l->signal_fd < 0)
        return l->signal_fd;
    int r = event_fd_add(&l->loop, &l->signals, l->signal_fd, EPOLLIN, on_signal);
    return r < 0 ? r : orphans_inherit(on_settled, l);
}

static void *thread_main(void *arg)
{
    struct local_shims *l = arg;

    int r = event_loop_run(&l->loop);
    if (r < 0)
        log_error("the event loop of containers without shim has failed: %s", err_strerror(r));
    return NULL;
}

/* The OCI runtime dies with the thread that started it, so this one ends with the process. */
static int start_thread(struct local_shims *l)
{
    pthread_attr_t attr;
    sigset_t all, before;

    int r = pthread_attr_init(&attr);
    if (r)
        return -r;
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&l->thread, &attr, thread_main, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

static void local_shims_done(struct local_shims *l)
{
    orphans_leave();
    event_fd_remove(&l->signals);
    close_fd(&l->signal_fd);
    reaper_done(&l->reaper);
    event_loop_done(&l->loop);
    strv_free(l->environment);
    free(l);
}

int local_shims_new(local_shims_publish_fn publish, void *userdata, struct local_shims **ret,
                    struct err *e)
{
    struct local_shims *l = calloc(1, sizeof(*l));

    if (!l)
        return err_oom(e);
    l->publish = publish;
    l->userdata = userdata;
    l->signal_fd = -EBADF;
    list_init(&l->shims);
    reaper_init(&l->reaper, &l->loop);
    int r = event_loop_init(&l->loop);
    if (r >= 0)
        r = event_loop_enable_posts(&l->loop);
    if (r >= 0)
        r = make_environment(l);
    if (r >= 0)
        r = watch_children(l);
    if (r >= 0)
        r = start_thread(l);
    if (r < 0) {
        local_shims_done(l);
        return err_errno(e, r, "make the loop of containers without shim");
    }
    *ret = l;
    return 0;
}

static void on_patience_over(struct event_timer *timer)
{
    struct local_shims *l = container_of(timer, struct local_shims, end_timer);

    log_warn("ending although the OCI runtime does not");
    event_loop_quit(&l->loop, 0);
}

static void end_all(struct event_post *post)
{
    struct local_shims *l = container_of(post, struct local_shims, end);
    struct local_shim *shim;

    l->is_ending = true;
    LIST_FOREACH (shim, &l->shims, link)
        begin_end(shim);
    event_timer_arm(&l->loop, &l->end_timer, END_TIMEOUT_MS, on_patience_over);
    if (list_is_empty(&l->shims))
        event_loop_quit(&l->loop, 0);
}

struct local_shims *local_shims_free(struct local_shims *l)
{
    if (!l)
        return NULL;
    orphans_leave();
    event_loop_post(&l->loop, &l->end, end_all);
    pthread_join(l->thread, NULL);
    local_shims_done(l);
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/sock.h"
#include "base/str.h"
#include "runtime/shim_v1.h"
#include "wire/pb.h"

void shim_endpoint_done(struct shim_endpoint *e)
{
    if (e->local.service)
        e->local.end(e->local.service);
    close_fd(&e->local.fd);
    free(e->address);
    proc_done(&e->proc);
    *e = (struct shim_endpoint)SHIM_ENDPOINT_NULL;
}

/* The connection and the process both tell of the end; the first one does the work. */
static void shim_die(struct shim *s)
{
    if (atomic_exchange(&s->dead, true))
        return;
    s->client = ttrpc_client_free(s->client);
    if (s->on_dead)
        s->on_dead(s, s->userdata);
}

/* One that was killed leaves its socket. Whoever took the address meanwhile has made a file of its
 * own. */
static void remove_socket(const struct shim *s)
{
    const char *path = str_after_prefix(s->address, "unix://");
    struct stat st;

    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == s->socket_inode)
        unlink(path);
}

/* One that nobody wants any more is as good as dead, which its owner must know. */
static void shim_free(struct shim *s)
{
    shim_die(s);
    event_fd_remove(&s->end);
    if (s->has_ended)
        remove_socket(s);
    proc_done(&s->proc);
    free(s->address);
    free(s);
}

static void shim_closed(void *userdata)
{
    shim_die(userdata);
}

static void shim_ended(struct event_fd *source, uint32_t events)
{
    struct shim *s = container_of(source, struct shim, end);
    int status = 0;

    event_fd_remove(source);
    list_remove(&s->dying);
    if (proc_reap(&s->proc, false, &status) == 1 && status != 0 && !s->killed)
        log_warn("shim %d at %s ended with status %d", (int)s->proc.pid, s->address, status);
    s->has_ended = true;
    shim_ref(s);
    shim_die(s);
    /* The reference that the process held. */
    shim_unref(s);
    shim_unref(s);
}

/* From here on the process holds a reference, so that it is reaped even when nobody else cares. */
static void shim_watch(struct shim *s)
{
    if (s->proc.pidfd < 0)
        return;
    shim_ref(s);
    int r = event_fd_add(s->loop, &s->end, s->proc.pidfd, EPOLLIN, shim_ended);
    if (r < 0) {
        log_warn("watch shim %d: %s", (int)s->proc.pid, err_strerror(r));
        shim_unref(s);
    }
}

static int open_connection(const struct shim_endpoint *endpoint, int *ret_fd, ino_t *ret_inode,
                           struct err *e)
{
    const char *path = str_after_prefix(endpoint->address, "unix://");
    _close_ int fd = -EBADF;
    struct stat st;

    if (!path)
        return err_set(e, ERR_INVALID_ARGUMENT, "address of the shim is not a unix socket: %s",
                       endpoint->address);
    int r = sock_connect(path, 0, &fd);
    if (r == -EAGAIN)
        return err_set(e, ERR_RESOURCE_EXHAUSTED,
                       "connect to shim at %s: too many connections wait for it already: "
                       "resource exhausted",
                       path);
    if (r < 0)
        return err_errno(e, r, "connect to shim at %s", path);

    /* Somebody else's socket in its place must not be talked to. */
    struct sock_peer peer;
    r = sock_peer(fd, &peer);
    if (r < 0 || peer.uid != geteuid())
        return err_set(e, ERR_PERMISSION_DENIED, "socket %s does not belong to a shim of ours",
                       path);
    *ret_inode = lstat(path, &st) == 0 ? st.st_ino : 0;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int shim_connect(struct event_loop *loop, struct shim_endpoint *endpoint, shim_dead_fn on_dead,
                 void *userdata, struct shim **ret, struct err *e)
{
    _close_ int fd = -EBADF;
    ino_t inode = 0;
    int r = 0;

    if (endpoint->local.service)
        fd = TAKE_FD(endpoint->local.fd);
    else
        r = open_connection(endpoint, &fd, &inode, e);
    if (r < 0)
        return r;
    struct shim *s = calloc(1, sizeof(*s));
    if (!s)
        return err_oom(e);
    atomic_init(&s->refs, 1);
    list_init(&s->dying);
    s->loop = loop;
    s->service = endpoint->version == 3 ? "containerd.task.v3.Task" : "containerd.task.v2.Task";
    s->socket_inode = inode;
    s->is_v1 = endpoint->version == 1;
    if (s->is_v1)
        s->service = SHIM_V1_SERVICE;
    s->proc = (struct proc)PROC_NULL;
    s->on_dead = on_dead;
    s->userdata = userdata;
    s->address = strdup(endpoint->address);
    r = s->address ? ttrpc_client_new(loop, fd, shim_closed, s, &s->client, e) : err_oom(e);
    if (r < 0) {
        free(s->address);
        free(s);
        return r;
    }
    (void)TAKE_FD(fd);
    s->proc = endpoint->proc;
    endpoint->proc = (struct proc)PROC_NULL;
    s->local = endpoint->local;
    endpoint->local = (struct shim_local){.fd = -EBADF};
    shim_watch(s);
    *ret = s;
    return 0;
}

void shim_forget(struct shim *s)
{
    s->on_dead = NULL;
    if (!s->end.loop)
        return;
    event_fd_remove(&s->end);
    /* The reference that the process held. */
    shim_unref(s);
}

void shim_detach(struct shim *s)
{
    s->client = ttrpc_client_free(s->client);
}

void shim_adopt(struct shim *s, pid_t pid)
{
    if (pid <= 1 || pid == getpid() || s->proc.pidfd >= 0 || atomic_load(&s->dead))
        return;
    if (proc_open(pid, &s->proc) >= 0)
        shim_watch(s);
}

struct shim *shim_ref(struct shim *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

bool shim_try_ref(struct shim *s)
{
    unsigned refs = atomic_load(&s->refs);

    while (refs > 0)
        if (atomic_compare_exchange_weak(&s->refs, &refs, refs + 1))
            return true;
    return false;
}

static void shim_free_on_loop(struct event_post *post)
{
    shim_free(container_of(post, struct shim, free_post));
}

struct shim *shim_unref(struct shim *s)
{
    if (s && atomic_fetch_sub(&s->refs, 1) == 1)
        event_loop_post(s->loop, &s->free_post, shim_free_on_loop);
    return NULL;
}

struct shim_reply {
    const ProtobufCMessageDescriptor *descriptor;
    bool is_v1;
    shim_reply_fn fn;
    void *userdata;
};

static void shim_replied(void *userdata, const struct err *e, const uint8_t *payload, size_t n)
{
    struct shim_reply *reply = userdata;
    struct shim_reply copy = *reply;
    struct err decode = ERR_INIT;
    ProtobufCMessage *message = NULL;

    free(reply);
    if (!e && pb_unpack(copy.descriptor, payload, n, &message, &decode) < 0) {
        err_wrap(&decode, "decode answer of the shim");
        e = &decode;
    }
    if (message && copy.is_v1 && !(message = shim_v1_reply(message))) {
        err_oom(&decode);
        e = &decode;
    }
    copy.fn(copy.userdata, e, message);
}

void shim_call(struct shim *s, const char *ns, const char *method, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *descriptor, uint64_t timeout_ms, shim_reply_fn fn,
               void *userdata)
{
    struct err e = ERR_INIT;
    struct shim_reply *reply = NULL;
    struct shim_v1_call v1;

    if (!s->client)
        err_set(&e, ERR_UNAVAILABLE, "ttrpc: closed: unavailable");
    else if (s->is_v1 && !shim_v1_translate(method, request, descriptor, &v1))
        err_set(&e, ERR_UNIMPLEMENTED, "method %s of a shim of runtime v1: not implemented",
                method);
    else if (!(reply = malloc(sizeof(*reply))))
        err_oom(&e);
    if (e.code != ERR_OK) {
        fn(userdata, &e, NULL);
        return;
    }
    if (s->is_v1) {
        method = v1.method;
        request = v1.request;
        descriptor = v1.reply;
    }
    *reply = (struct shim_reply){descriptor, s->is_v1, fn, userdata};
    if (ttrpc_client_call(s->client, s->service, method, ns, request, timeout_ms, shim_replied,
                          reply, &e) < 0) {
        free(reply);
        fn(userdata, &e, NULL);
    }
}

void shim_cork(struct shim *s)
{
    if (s->client)
        ttrpc_client_cork(s->client);
}

void shim_uncork(struct shim *s)
{
    if (s->client)
        ttrpc_client_uncork(s->client);
}

struct sync_call {
    struct event_post post;
    struct rendezvous meet;
    struct shim *shim;
    const char *ns;
    const char *method;
    const ProtobufCMessage *request;
    const ProtobufCMessageDescriptor *descriptor;
    uint64_t timeout_ms;
    ProtobufCMessage *reply;
    struct err *err;
    bool failed;
};

static void sync_replied(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct sync_call *call = userdata;

    call->reply = reply;
    call->failed = e != NULL;
    if (e && call->err)
        *call->err = *e;
    rendezvous_signal(&call->meet);
}

static void sync_start(struct event_post *post)
{
    struct sync_call *call = container_of(post, struct sync_call, post);

    shim_call(call->shim, call->ns, call->method, call->request, call->descriptor, call->timeout_ms,
              sync_replied, call);
}

int shim_call_sync(struct shim *s, const char *ns, const char *method,
                   const ProtobufCMessage *request, const ProtobufCMessageDescriptor *descriptor,
                   uint64_t timeout_ms, ProtobufCMessage **ret_reply, struct err *e)
{
    struct sync_call call = {
        .meet = RENDEZVOUS_INIT,
        .shim = s,
        .ns = ns,
        .method = method,
        .request = request,
        .descriptor = descriptor,
        .timeout_ms = timeout_ms,
        .err = e,
    };

    event_loop_post(s->loop, &call.post, sync_start);
    rendezvous_wait(&call.meet);
    if (call.failed)
        return ERR_RETURN;
    if (ret_reply)
        *ret_reply = call.reply;
    else
        pb_free(call.reply);
    return 0;
}

struct kill_job {
    struct shim *shim;
    int pidfd;
    void *service;
    bool known;
};

/* On the loop, where the process is reaped: until then its pidfd names it and nothing else. */
static void kill_run(void *arg)
{
    struct kill_job *job = arg;
    struct shim *s = job->shim;

    job->service = s->local.service;
    s->local.service = NULL;
    job->known = proc_is_set(&s->proc) || s->local.end;
    if (!s->end.loop)
        return;
    s->killed = true;
    if (proc_kill(&s->proc, SIGKILL) >= 0)
        job->pidfd = fcntl(s->proc.pidfd, F_DUPFD_CLOEXEC, 3);
}

/* It is as dead as a process, and nobody must find it under its address any more. */
static void die_run(void *arg)
{
    shim_die(arg);
}

int shim_kill(struct shim *s, int timeout_ms)
{
    struct kill_job job = {.shim = s, .pidfd = -EBADF};

    loop_run(s->loop, kill_run, &job);
    if (job.service) {
        s->local.end(job.service);
        loop_run(s->loop, die_run, s);
    }
    if (job.pidfd < 0)
        return job.known ? 0 : -ESRCH;
    _close_ int pidfd = job.pidfd;
    struct proc ended = {.pidfd = pidfd};
    return proc_wait_end(&ended, timeout_ms) == 1 ? 0 : -ETIMEDOUT;
}

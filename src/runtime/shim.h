/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One running shim, as the daemon sees it: its process and one ttrpc connection, shared by the
 * tasks of its group. The connection belongs to the loop; shim_call() is for the loop's thread,
 * shim_call_sync() for every other.
 *
 * Life: shim_connect() -> calls -> dead (the connection closed or the process ended, whichever is
 * seen first; `on_dead` is told once, on the loop) -> freed with the last reference, which is a
 * death too if there was none before.
 */
#pragma once

#include <stdatomic.h>

#include "base/event.h"
#include "base/proc.h"
#include "base/rendezvous.h"
#include "wire/ttrpc_client.h"

struct shim;
typedef void (*shim_dead_fn)(struct shim *shim, void *userdata);

/* In a shim's place: its service inside this process, on the other end of a socket pair. */
struct shim_local {
    void *service; /* NULL: there is a process */
    int fd;        /* our end, until it is connected */
    /* [not the loop] Ends it as SIGKILL ends a shim. */
    void (*end)(void *service);
};

/* Where a shim is and what it speaks. */
struct shim_endpoint {
    char *address;    /* "unix:///run/containerd/s/...", "local:<ns>/<id>" */
    int version;      /* of the task service: 2 or 3; 1: runtime v1 (runtime/shim_v1.h) */
    struct proc proc; /* ours when we started it directly, else none */
    struct shim_local local;
};
#define SHIM_ENDPOINT_NULL                          \
    {                                               \
        .proc = PROC_NULL, .local = {.fd = -EBADF } \
    }
/* [not the loop] Ends a local service that was not connected to. */
void shim_endpoint_done(struct shim_endpoint *e);

struct shim {
    atomic_uint refs;
    struct event_loop *loop;
    char *address;
    const char *service; /* "containerd.task.v2.Task" or v3, or that of runtime v1 */
    ino_t socket_inode;  /* of the address, to know the file again; 0: unknown */
    struct shim_local local;
    bool is_v1; /* calls are in the language of v2 all the same, and translated */
    atomic_bool dead;

    /* The loop's own. */
    struct ttrpc_client *client; /* NULL once dead */
    struct proc proc;
    bool killed;         /* by us: its status is no news */
    bool has_ended;      /* the process: the last reference removes what it left of its socket */
    struct event_fd end; /* readable pidfd */
    struct event_post free_post;
    struct list
        dying; /* of whoever waits for the end of a dead one's process, see tasks_private.h */
    shim_dead_fn on_dead;
    void *userdata;
};

/* [loop] Connects to the endpoint (a local socket: at once or not at all). endpoint->proc and
 * ->local are taken on success. RESOURCE_EXHAUSTED: the shim is there, but does not accept
 * connections. */
int shim_connect(struct event_loop *loop, struct shim_endpoint *endpoint, shim_dead_fn on_dead,
                 void *userdata, struct shim **ret, struct err *e);
struct shim *shim_ref(struct shim *s);
/* For who knows the shim without a reference: false when the last one is gone. */
bool shim_try_ref(struct shim *s);
/* [any thread] Takes NULL. Returns NULL. */
struct shim *shim_unref(struct shim *s);
/* [loop] The registry goes: nobody is told of the shim's death any more, and its process is not
 * waited for. */
void shim_forget(struct shim *s);
/* [loop] Closes the connection and leaves the shim alone: open calls are answered "ttrpc: closed".
 */
void shim_detach(struct shim *s);
/* [loop] Pins the process by the pid that the shim told us (after a restart we are not its parent).
 */
void shim_adopt(struct shim *s, pid_t pid);
/* [not the loop] Ends the process with SIGKILL and waits for that at most timeout_ms. 0, also when
 * it has ended before; -ESRCH: its process was never known; -ETIMEDOUT. One without a process of
 * its own is ended likewise. */
int shim_kill(struct shim *s, int timeout_ms);

/* What a call ends with: e NULL and the reply, owned by the receiver (pb_free()), or the error. */
typedef void (*shim_reply_fn)(void *userdata, const struct err *e, ProtobufCMessage *reply);

/* [loop] Always answers through fn, at once when the shim is dead (UNAVAILABLE "ttrpc: closed"). */
void shim_call(struct shim *s, const char *ns, const char *method, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms, shim_reply_fn fn,
               void *userdata);
/* [loop] Calls between the two leave together, so that the shim wakes up but once for them. Not for
 * longer than the loop's turn. */
void shim_cork(struct shim *s);
void shim_uncork(struct shim *s);
/* [not the loop] Blocks until answered. ret_reply may be NULL. */
int shim_call_sync(struct shim *s, const char *ns, const char *method,
                   const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                   uint64_t timeout_ms, ProtobufCMessage **ret_reply, struct err *e);

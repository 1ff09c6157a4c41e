/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ttrpc server on one listening socket, driven by an event loop; everything runs on the loop's
 * thread.
 *
 * A peer whose effective uid or gid is not ours is closed before a byte is read (SO_PEERCRED).
 * Requests of one connection are handled concurrently: a handler starts work and returns; the call
 * is answered later, exactly once, with ttrpc_call_reply() or ttrpc_call_fail(), in any order. A
 * call whose connection has gone is answered the same way; the answer is dropped.
 *
 * Limits: connections, calls in flight a connection and bytes waiting to be written a connection; a
 * peer that does not read loses its connection at the last one.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/event.h"

#define TTRPC_SERVER_MAX_CONNECTIONS 256
#define TTRPC_SERVER_MAX_CALLS 1024
#define TTRPC_SERVER_MAX_QUEUED_BYTES (8u << 20)

struct ttrpc_call;
struct ttrpc_server;

struct ttrpc_method {
    const char *name;
    const ProtobufCMessageDescriptor *request;
    /* `request` is valid until the call is answered. */
    void (*handle)(struct ttrpc_call *call, const ProtobufCMessage *request);
};

struct ttrpc_service {
    const char *name;                   /* full: "containerd.task.v2.Task" */
    const struct ttrpc_method *methods; /* sorted by name */
    size_t n_methods;
};

/* listen_fd is owned from success on (-EBADF: none, connections come by ttrpc_server_add() only);
 * services and userdata are borrowed for the server's life. */
int ttrpc_server_new(struct event_loop *loop, int listen_fd, const struct ttrpc_service *services,
                     size_t n_services, void *userdata, struct ttrpc_server **ret, struct err *e);
/* Serves a connected socket from elsewhere, under the same checks; fd is owned from success on. */
int ttrpc_server_add(struct ttrpc_server *s, int fd, struct err *e);
/* Stops listening, writes out what is queued as far as it goes without waiting, closes everything.
 * Unanswered calls stay valid and must still be answered. Takes NULL. Returns NULL. */
struct ttrpc_server *ttrpc_server_free(struct ttrpc_server *s);
/* True once everything queued on every connection has been written. */
bool ttrpc_server_is_flushed(const struct ttrpc_server *s);
bool ttrpc_server_has_connections(const struct ttrpc_server *s);
/* Called on the loop whenever the last queued byte has been written, and when the last connection
 * has gone (for a server that ends after its last answer). */
void ttrpc_server_on_flushed(struct ttrpc_server *s, void (*fn)(void *userdata));

void *ttrpc_call_userdata(const struct ttrpc_call *call);
const char *ttrpc_call_service(const struct ttrpc_call *call);
/* First value of a metadata key (lower case), NULL if absent. Borrowed. */
const char *ttrpc_call_metadata(const struct ttrpc_call *call, const char *key);
/* Milliseconds the peer gave us, 0: none. */
uint64_t ttrpc_call_timeout_ms(const struct ttrpc_call *call);
/* Both end the life of `call` and of its request. */
void ttrpc_call_reply(struct ttrpc_call *call, const ProtobufCMessage *message);
void ttrpc_call_fail(struct ttrpc_call *call, const struct err *e);

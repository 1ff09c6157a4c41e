/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ttrpc connection as its dialling side, driven by an event loop; everything runs on the loop's
 * thread. Calls are concurrent; each is answered exactly once: with the reply, with an error of the
 * peer, with ERR_DEADLINE_EXCEEDED ("context deadline exceeded") when its time is over, or with
 * ERR_UNAVAILABLE "ttrpc: closed" when the connection ends or the client is freed.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/event.h"

struct ttrpc_client;

/* e is NULL on success; payload is borrowed for the duration of the call. */
typedef void (*ttrpc_reply_fn)(void *userdata, const struct err *e, const uint8_t *payload,
                               size_t n);
/* The peer is gone. Called once, from the loop, after every open call was answered; the client may
 * be freed in it. Not called by ttrpc_client_free(). */
typedef void (*ttrpc_closed_fn)(void *userdata);

#define TTRPC_CLIENT_MAX_CALLS 8192
#define TTRPC_CLIENT_MAX_QUEUED_BYTES (16u << 20)

/* fd: a connected socket, owned from success on. */
int ttrpc_client_new(struct event_loop *loop, int fd, ttrpc_closed_fn closed, void *userdata,
                     struct ttrpc_client **ret, struct err *e);
/* Answers every open call with "ttrpc: closed". Takes NULL. Returns NULL. */
struct ttrpc_client *ttrpc_client_free(struct ttrpc_client *c);

/* Sends a request. namespace_: metadata containerd-namespace-ttrpc when not NULL. timeout_ms 0:
 * none. On failure nothing was sent and fn will not be called. */
int ttrpc_client_call(struct ttrpc_client *c, const char *service, const char *method,
                      const char *namespace_, const ProtobufCMessage *request, uint64_t timeout_ms,
                      ttrpc_reply_fn fn, void *userdata, struct err *e);
/* The same with a request that is serialized already. */
int ttrpc_client_call_raw(struct ttrpc_client *c, const char *service, const char *method,
                          const char *namespace_, const void *request, size_t n,
                          uint64_t timeout_ms, ttrpc_reply_fn fn, void *userdata, struct err *e);
/* Between the two, requests gather and then are written at once, so that the peer wakes up but once
 * for all of them. Not for longer than the loop's turn. */
void ttrpc_client_cork(struct ttrpc_client *c);
void ttrpc_client_uncork(struct ttrpc_client *c);
/* Calls waiting for an answer. */
size_t ttrpc_client_pending(const struct ttrpc_client *c);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gRPC client connection over a unix socket, driven by an event loop; all on the loop's thread.
 * The command line uses it, with its own loop; grpc_client_call_sync() turns that loop until one
 * call is answered, so that straight-line code and callbacks (signals, resize, Wait) live together.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/event.h"
#include "base/strmap.h"

struct grpc_client;
struct grpc_client_call;

/* Once per message; message is owned by the receiver (pb_free()). */
typedef void (*grpc_client_message_fn)(struct grpc_client_call *call, void *userdata,
                                       ProtobufCMessage *message);
/* Last; e is NULL on OK. The call is freed after it. */
typedef void (*grpc_client_end_fn)(struct grpc_client_call *call, void *userdata,
                                   const struct err *e);

/* Connects (waiting at most timeout_ms) and sends the preface. ERR_UNAVAILABLE:
 * `failed to dial "<path>": <why>`. */
int grpc_client_new(struct event_loop *loop, const char *path, int timeout_ms,
                    struct grpc_client **ret, struct err *e);
/* Open calls end with ERR_UNAVAILABLE. Takes NULL. Returns NULL. */
struct grpc_client *grpc_client_free(struct grpc_client *c);

/* Headers sent with every further call: containerd-namespace, containerd-lease. NULL value removes.
 */
int grpc_client_set_header(struct grpc_client *c, const char *name, const char *value);

/* One request, any number of answers. method: "/package.Service/Method". timeout_ms 0: none. The
 * call ends with end(), also after failures of the connection. On failure here end() is not called.
 */
int grpc_client_start(struct grpc_client *c, const char *method, const ProtobufCMessage *request,
                      const ProtobufCMessageDescriptor *reply, uint64_t timeout_ms,
                      grpc_client_message_fn message, grpc_client_end_fn end, void *userdata,
                      struct grpc_client_call **ret, struct err *e);
/* A bidi call: open, send any number, half-close. */
int grpc_client_open(struct grpc_client *c, const char *method,
                     const ProtobufCMessageDescriptor *reply, grpc_client_message_fn message,
                     grpc_client_end_fn end, void *userdata, struct grpc_client_call **ret,
                     struct err *e);
int grpc_client_call_send(struct grpc_client_call *call, const ProtobufCMessage *message,
                          struct err *e);
/* Bytes accepted by grpc_client_call_send() and not yet written. Senders keep it below a few MiB by
 * turning the loop. */
size_t grpc_client_call_queued_bytes(const struct grpc_client_call *call);
void grpc_client_call_close_send(struct grpc_client_call *call);
/* RST_STREAM; end() comes with ERR_CANCELED before this returns. */
void grpc_client_call_cancel(struct grpc_client_call *call);

/* Unary, turning the loop until answered. *ret is owned by the caller (pb_free()). */
int grpc_client_call_sync(struct grpc_client *c, const char *method,
                          const ProtobufCMessage *request, const ProtobufCMessageDescriptor *reply,
                          uint64_t timeout_ms, ProtobufCMessage **ret, struct err *e);

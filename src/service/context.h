/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the services work on. Made by the daemon, borrowed by every service for its life; handlers
 * reach it by grpc_call_userdata().
 *
 * Each service is one file named as its proto, and exports one table:
 *
 *     void containers_service_init(struct grpc_service *service, struct service_context *ctx);
 *
 * Handlers are named <service>_<method> and do: namespace and lease of the request, conversion to
 * the store's structs, the store's call, the event, the reply.
 */
#pragma once

#include "base/err.h"
#include "wire/grpc_server.h"

struct content_store;
struct db;
struct exchange;
struct gc;
struct platform;
struct snapshotters;
struct tasks;
struct workq;
struct event_loop;

struct service_context {
    struct event_loop *loop;
    struct workq *pool;
    struct db *db;
    struct content_store *content;
    struct snapshotters *snapshotters;
    struct gc *gc;
    struct exchange *exchange;
    struct tasks *tasks;
    const char *root;        /* /var/lib/wherry */
    const char *state;       /* /run/wherry */
    const char *worker_path; /* wherry-worker */
    const char *version;
    const char *revision;
    uint64_t state_timeout_ms; /* for a shim to tell a task's state or its figures */
    /* Of the configuration; lists end with NULL and may be NULL. */
    char *const *disabled_plugins; /* full ids */
    char *const *differs;
    const struct platform *platforms; /* whose containers can be run; none: the host's */
    size_t n_platforms;
};

/* Namespace of the request, validated: FAILED_PRECONDITION "namespace is required: failed
 * precondition", INVALID_ARGUMENT "namespace validation: ...". Borrowed for the call's life. */
int service_namespace(const struct grpc_call *call, const char **ret, struct err *e);
/* Lease of the request, "" without. */
const char *service_lease(const struct grpc_call *call);
/* Answers: the reply when r >= 0, else the error. `reply` is freed with pb_free() (may be NULL on
 * error). */
void service_answer(struct grpc_call *call, int r, ProtobufCMessage *reply, const struct err *e);
/* Empty. */
void service_answer_empty(struct grpc_call *call, int r, const struct err *e);

/* A new message to be filled from malloc'ed parts and freed with pb_free(). NULL: out of memory. */
void *service_message_new(const ProtobufCMessageDescriptor *descriptor);
/* Sets a string field of such a message; NULL reads as "". Returns false when out of memory. */
bool service_set_string(char **field, const char *value);
/* Publishes and frees an event of the daemon, after the commit of what it tells of. NULL is taken
 * (there was no memory for it). Failing is logged: the call has succeeded. */
void service_publish(struct service_context *ctx, const char *ns, const char *topic,
                     ProtobufCMessage *event);

void containers_service_init(struct grpc_service *service, struct service_context *ctx);
void content_service_init(struct grpc_service *service, struct service_context *ctx);
void diff_service_init(struct grpc_service *service, struct service_context *ctx);
void events_service_init(struct grpc_service *service, struct service_context *ctx);
void health_service_init(struct grpc_service *service, struct service_context *ctx);
void images_service_init(struct grpc_service *service, struct service_context *ctx);
void introspection_service_init(struct grpc_service *service, struct service_context *ctx);
void leases_service_init(struct grpc_service *service, struct service_context *ctx);
void namespaces_service_init(struct grpc_service *service, struct service_context *ctx);
void snapshots_service_init(struct grpc_service *service, struct service_context *ctx);
void tasks_service_init(struct grpc_service *service, struct service_context *ctx);
void version_service_init(struct grpc_service *service, struct service_context *ctx);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How calls of the shim's services are answered: at once, or later from the state of a process.
 * What the services have in common, whatever their messages are.
 */
#pragma once

#include "base/mount.h"
#include "shim/container.h"
#include "types.pb-c.h"
#include "v1.types.pb-c.h"
#include "wire/ttrpc_server.h"

void answer_empty(struct ttrpc_call *call);
void answer_error(struct ttrpc_call *call, enum err_code code, const char *text);
/* done_fn for methods that answer nothing; userdata is the call. */
void answer_done(void *userdata, const struct err *e);

/* A call that is answered later, with what it needs until then. */
struct answer {
    struct ttrpc_call *call;
    struct process *process; /* a reference, NULL where there is none yet */
    char *id;
    struct process_exit exit;
    struct container_pids pids;
    Pb__V1types__ProcessInfo **infos;
    size_t n_infos;
};

/* p and id may be NULL. NULL: out of memory, and the call has been failed. */
struct answer *answer_new(struct ttrpc_call *call, struct process *p, const char *id);
void answer_free(struct answer *a);

/* The process's state in the words of the task API. */
Pb__V1types__Status answer_status(const struct process *p);
bool answer_has_ended(const struct process *p);

/* What a service tells of a process by its id: NULL for nothing. The result is the caller's. */
typedef Google__Protobuf__Any *(*answer_describe_fn)(struct container *c, uint32_t pid);
/* a->pids as messages, a->infos. */
int answer_describe_pids(struct answer *a, answer_describe_fn describe, struct err *e);

/* The mounts of a request, added to ret. what: for whom, for the sentence. */
int answer_take_mounts(Pb__Types__Mount *const *mounts, size_t n, const char *what,
                       struct mount_list *ret, struct err *e);

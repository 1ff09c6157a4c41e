/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A container: its bundle, how it is run, its init process and its execs.
 *
 * Referenced by the shim's map while clients know it and by each of its processes.
 */
#pragma once

#include "base/mount.h"
#include "cgroup/cgroup.h"
#include "cgroup/oom.h"
#include "shim/options.h"
#include "shim/process.h"

#define CONTAINER_EXECS_MAX 65536

struct container {
    unsigned refs;
    struct list link; /* of those that are alive */
    struct shim *shim;
    size_t n_ops; /* operations on its processes that have not ended */
    char *id;
    char *bundle;
    char *rootfs; /* where n_mounts mounts are stacked */
    size_t n_mounts;
    struct options options;
    struct runtime runtime;
    struct cgroup cgroup;
    struct oom oom;
    bool has_private_pids;
    bool is_killed;    /* all of it: it must not be paused any more */
    bool lost_runtime; /* it is ended without the OCI runtime */
    char *checkpoint;  /* restored from at start, NULL: none */
    char *parent_checkpoint;
    struct process *init;
    struct map execs;      /* by exec id, references */
    bool init_end_pending; /* known, and to be told when the last exec has ended */
    struct event_timer end_timer;
};

struct container_request {
    const char *id;
    const char *bundle;
    const char *runtime_name; /* of runtime v1, NULL: as the options say */
    const struct mount_list *rootfs;
    bool terminal;
    const char *stdin_path, *stdout_path, *stderr_path;
    const char *checkpoint, *parent_checkpoint;
    const Google__Protobuf__Any *options;
};

/* Creates container and init, CREATED when done comes with success; on failure nothing is left. All
 * of request is borrowed until this returns. */
void container_begin(struct shim *s, const struct container_request *request, done_fn done,
                     void *userdata);
struct container *container_ref(struct container *c);
struct container *container_unref(struct container *c); /* takes NULL; returns NULL */

/* NULL, and ERR_NOT_FOUND "container not created: not found". Borrowed. */
struct container *container_find(const struct shim *s, const char *id, struct err *e);
/* Init of a container that is being made, else NULL. For State alone: a daemon that was restarted
 * meanwhile asks until there is a pid. */
struct process *container_find_creating(const struct shim *s, const char *id);
/* exec_id "" or NULL: init. ERR_NOT_FOUND "process does not exist X: not found". */
struct process *container_process(struct container *c, const char *exec_id, struct err *e);

struct container_exec {
    const char *exec_id;
    bool terminal;
    const char *stdin_path, *stdout_path, *stderr_path;
    const char *spec; /* JSON */
    size_t spec_len;
};
/* Only records it. ERR_ALREADY_EXISTS, ERR_INVALID_ARGUMENT, ERR_UNKNOWN by state. */
int container_exec(struct container *c, const struct container_exec *request, struct err *e);

void container_pause(struct container *c, done_fn done, void *userdata);
void container_resume(struct container *c, done_fn done, void *userdata);
/* resources: JSON of LinuxResources. */
void container_set_resources(struct container *c, const char *resources, size_t n, done_fn done,
                             void *userdata);
struct container_pids {
    uint32_t *pids;
    size_t n;
};
/* Every process of the container; ret is filled before done comes with success, the caller frees
 * its pids. */
void container_list_pids(struct container *c, struct container_pids *ret, done_fn done,
                         void *userdata);
/* NULL: not one of its processes that a client has named. */
struct process *container_process_by_pid(struct container *c, pid_t pid);

struct container_checkpoint {
    const char *image_path; /* "": in the bundle */
    const char *work_path;  /* "": in the bundle, for the length of the call */
    const char *parent_path;
    bool exit;
    bool open_tcp;
    bool external_unix_sockets;
    bool terminal;
    bool file_locks;
    char *const *empty_namespaces;
    size_t n_empty_namespaces;
};
/* The runtime has CRIU do it, which may take minutes; calls that need no queue are answered
 * meanwhile. When it fails CRIU's log is copied to <bundle>/criu-dump.log, which the error names.
 * Of a container that ends by it (exit) the end is told as any other. */
void container_checkpoint(struct container *c, const struct container_checkpoint *request,
                          done_fn done, void *userdata);

/*
 * For process.c.
 */

/* Learns the control group from init's pid and begins to watch it. */
void container_find_cgroup(struct container *c);
/* Init runs, and that is told. */
void container_has_started(struct container *c);
/* Init's end is known and everything before it has been told. */
void container_init_ended(struct container *c);
/* An exec has ended or was given up. */
void container_exec_ended(struct container *c);
/* Init and everything of the container is gone: removes it from the shim, unmounts its rootfs
 * without blocking, then calls fn(op). */
void container_release(struct container *c, struct op *op, op_fn fn);
/* The OCI runtime's delete; force ends what still runs. */
void container_call_delete(struct op *op, bool force, runtime_call_fn fn);
/* Nothing that a failed create or restore has left runs or is known to the OCI runtime any more, and
 * init is not watched, when fn(op) comes. What was mounted stays. */
void container_undo_launch(struct op *op, op_fn fn);
/* Start of a container that was created from a checkpoint; ends op. When it fails nothing of it is
 * left, and it may be started again or deleted. */
void container_restore(struct op *op);
/* Forgets an exec. */
void container_remove_exec(struct container *c, struct process *p);
/* Nothing is waited for any more: calls of the OCI runtime are killed and no new ones made, the
 * streams of what is under way are given up. Operations end in the next turns of the loop. */
void container_cut_short(struct container *c);
/* Drops what the shim knows of it and leaves the container as it is. Nothing may be under way that
 * is to go on. */
void container_forget(struct container *c);
void container_publish(struct container *c, const char *topic, const ProtobufCMessage *event);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox of a shim: what containerd's sandbox controllers make for a pod before its
 * containers.
 *
 *     CREATED -> READY -> STOPPING -> STOPPED
 *
 * It has no process of its own: its pid is the shim's. When a network namespace is named, the shim
 * moves into it, and into namespaces of its own for IPC and host name, because clients make the
 * pod's containers join those of the sandbox's pid.
 *
 * One a shim, at most. A shim with a sandbox stays, whatever containers come and go; all that are
 * created meanwhile belong to the sandbox. They are noted in <bundle>/containers/<id>/, so that the
 * delete action for a sandbox whose shim was killed ends them too: daemons do not look after the
 * single containers of a sandbox. But some (containerd's CRI plugin) remove their bundles at once,
 * so a note has what is needed to end them: links to their files, and one to the bundle.
 *
 * Referenced by the shim and by stops that are under way.
 */
#pragma once

#include "base/mount.h"
#include "shim/shim.h"

#define SANDBOX_WAITERS_MAX 1024
#define SANDBOX_CONTAINERS "containers" /* in the bundle */

struct container;

enum sandbox_state { SANDBOX_CREATED, SANDBOX_READY, SANDBOX_STOPPING, SANDBOX_STOPPED };

struct sandbox {
    unsigned refs;
    struct shim *shim; /* NULL: shut down */
    enum sandbox_state state;
    char *id;
    char *bundle;
    char *rootfs; /* where n_mounts mounts are stacked */
    size_t n_mounts;
    char *netns_path; /* NULL: the host's network */
    struct timespec created_at;
    struct timespec exited_at; /* {0, 0} before STOPPED */
    size_t n_ending;           /* containers that are waited for while STOPPING */
    struct list waiters;
    size_t n_waiters;
};

struct sandbox_request {
    const char *id;
    const char *bundle; /* absolute */
    const struct mount_list *rootfs;
    const char *netns_path; /* "" or NULL: none */
};

/* ERR_ALREADY_EXISTS; ERR_FAILED_PRECONDITION: this shim has another one, or the namespace cannot
 * be joined; ERR_INVALID_ARGUMENT. On failure nothing is left. */
int sandbox_create(struct shim *s, const struct sandbox_request *request, struct err *e);
/* ERR_NOT_FOUND. */
struct sandbox *sandbox_find(const struct shim *s, const char *id, struct err *e);
/* ERR_FAILED_PRECONDITION once it is being stopped. A second start is none. */
int sandbox_start(struct sandbox *sb, struct err *e);
/* Kills what runs in it and calls fn when all has ended, at once when it had been stopped before.
 * ERR_RESOURCE_EXHAUSTED, then fn is not called. */
typedef void (*sandbox_fn)(void *userdata, const struct sandbox *sb);
int sandbox_stop(struct sandbox *sb, sandbox_fn fn, void *userdata, struct err *e);
/* Calls fn when it is stopped or shut down. */
int sandbox_wait(struct sandbox *sb, sandbox_fn fn, void *userdata, struct err *e);
/* Forgets it; containers that are left run on. */
void sandbox_shut_down(struct sandbox *sb);
/* For a shim that ends: everything stays as it is. */
void sandbox_leave(struct sandbox *sb);

/* A new container: ERR_FAILED_PRECONDITION while the sandbox ends. */
int sandbox_add_container(struct sandbox *sb, const struct container *c, struct err *e);
/* Notes those of its files that there are by now and that tell how to end it. */
void sandbox_keep_files(struct sandbox *sb, const struct container *c);
void sandbox_remove_container(struct sandbox *sb, const struct container *c);

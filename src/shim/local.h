/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service of runtime v1's shim inside a process that is no shim: the daemon, with no_shim =
 * true. The one header of this folder that others include.
 *
 * Each container has a service object of its own, served on one end of a socket pair, so that who
 * asks for it talks to it as to a shim. All of them live on one loop, on a thread of its own:
 * mounting, unmounting and starting programs may take long, and holds up such containers alone. The
 * process becomes a child subreaper (base/orphans.h). Nothing else of it is changed, and nothing is
 * meant for it alone: the OCI runtime does not see the environment of a unit of systemd.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"

struct local_shims;
struct local_shim;

/* [their thread] An event of a container; must not block. */
typedef void (*local_shims_publish_fn)(void *userdata, const char *namespace_, const char *topic,
                                       const ProtobufCMessage *event);

/* Before this process has other threads or children. */
int local_shims_new(local_shims_publish_fn publish, void *userdata, struct local_shims **ret,
                    struct err *e);
/* Ends all that are left; containers run on, without parent. Nothing is published afterwards. Takes
 * NULL. Returns NULL. */
struct local_shims *local_shims_free(struct local_shims *l);

/* What a shim is told on its command line; copied. */
struct local_shim_options {
    const char *namespace_;
    const char *runtime_root;
    const char *criu; /* "": none */
    bool systemd_cgroup;
    bool debug;
};
/* [not their thread] *ret_fd: the other end, non-blocking, the caller's. Closing it ends nothing.
 */
int local_shim_new(struct local_shims *l, const struct local_shim_options *options,
                   struct local_shim **ret, int *ret_fd, struct err *e);
/* [not their thread] The end of a shim by SIGKILL: the connection closes, the OCI runtime is killed
 * where it is being called, no event comes any more, and the container is left as it is. Waits
 * until nothing of that is under way, some seconds at most. */
void local_shim_end(struct local_shim *shim);

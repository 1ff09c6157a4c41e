/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/no_shim.h"

#include "base/log.h"
#include "wire/pb.h"

/* As if `wherryd publish` had brought it, so that it is seen where those are looked at. */
static void publish(void *userdata, const char *namespace_, const char *topic,
                    const ProtobufCMessage *event)
{
    struct no_shim *n = userdata;
    _cleanup_(any_done) struct any any = {0};
    struct err e = ERR_INIT;

    int r = any_pack(&any, event) < 0
                ? err_oom(&e)
                : exchange_publish_any(n->exchange, namespace_, topic, &any, &e);
    if (r < 0)
        log_warn("publish %s of namespace %s: %s", topic, namespace_, e.msg);
}

static void end(void *service)
{
    local_shim_end(service);
}

static int begin(void *userdata, const char *ns, const struct linux_runtime *runtime, bool debug,
                 struct shim_local *ret, struct err *e)
{
    struct no_shim *n = userdata;
    const struct local_shim_options options = {
        .namespace_ = ns,
        .runtime_root = runtime->runtime_root,
        .criu = runtime->criu,
        .systemd_cgroup = runtime->systemd_cgroup,
        .debug = debug,
    };
    struct local_shim *shim = NULL;
    int fd = -EBADF;

    int r = local_shim_new(n->shims, &options, &shim, &fd, e);
    if (r < 0)
        return r;
    *ret = (struct shim_local){.service = shim, .fd = fd, .end = end};
    return 0;
}

int no_shim_init(struct no_shim *n, struct err *e)
{
    n->door = (struct linux_local){.begin = begin, .userdata = n};
    return local_shims_new(publish, n, &n->shims, e);
}

void no_shim_done(struct no_shim *n)
{
    n->shims = local_shims_free(n->shims);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/sandbox_service.h"

#include "base/str.h"
#include "oci/config.h"
#include "oci/platform.h"
#include "runtime.sandbox.v1.pb-c.h"
#include "shim/answer.h"
#include "shim/sandbox.h"
#include "wire/pb.h"

static struct shim *shim_of(const struct ttrpc_call *call)
{
    const struct task_service *service = ttrpc_call_userdata(call);
    return service->shim;
}

static struct sandbox *find_sandbox(struct ttrpc_call *call, const char *id)
{
    struct err e = ERR_INIT;
    struct sandbox *sb = sandbox_find(shim_of(call), id, &e);

    if (!sb)
        ttrpc_call_fail(call, &e);
    return sb;
}

static void handle_create(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__CreateSandboxRequest *r = (const void *)message;
    Pb__Sandbox__CreateSandboxResponse response = PB__SANDBOX__CREATE_SANDBOX_RESPONSE__INIT;
    _cleanup_(mount_list_done) struct mount_list rootfs = {};
    struct err e = ERR_INIT;
    const struct sandbox_request request = {
        .id = r->sandbox_id,
        .bundle = r->bundle_path,
        .rootfs = &rootfs,
        .netns_path = r->netns_path,
    };

    if (answer_take_mounts(r->rootfs, r->n_rootfs, r->sandbox_id, &rootfs, &e) < 0 ||
        sandbox_create(shim_of(call), &request, &e) < 0)
        ttrpc_call_fail(call, &e);
    else
        ttrpc_call_reply(call, &response.base);
}

static void handle_start(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__StartSandboxRequest *r = (const void *)message;
    Pb__Sandbox__StartSandboxResponse response = PB__SANDBOX__START_SANDBOX_RESPONSE__INIT;
    struct sandbox *sb = find_sandbox(call, r->sandbox_id);
    struct err e = ERR_INIT;

    if (!sb)
        return;
    if (sandbox_start(sb, &e) < 0) {
        ttrpc_call_fail(call, &e);
        return;
    }
    response.pid = (uint32_t)getpid();
    response.created_at = pb_timestamp_new(sb->created_at);
    ttrpc_call_reply(call, &response.base);
    pb_free(response.created_at ? &response.created_at->base : NULL);
}

static void handle_platform(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__PlatformRequest *r = (const void *)message;
    Pb__Sandbox__PlatformResponse response = PB__SANDBOX__PLATFORM_RESPONSE__INIT;
    Pb__Types__Platform platform = PB__TYPES__PLATFORM__INIT;
    struct platform host;

    if (!find_sandbox(call, r->sandbox_id))
        return;
    platform_host(&host);
    platform.os = host.os;
    platform.architecture = host.architecture;
    platform.variant = host.variant;
    response.platform = &platform;
    ttrpc_call_reply(call, &response.base);
}

static void on_stopped(void *userdata, const struct sandbox *sb)
{
    Pb__Sandbox__StopSandboxResponse response = PB__SANDBOX__STOP_SANDBOX_RESPONSE__INIT;

    ttrpc_call_reply(userdata, &response.base);
}

static void handle_stop(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__StopSandboxRequest *r = (const void *)message;
    struct sandbox *sb = find_sandbox(call, r->sandbox_id);
    struct err e = ERR_INIT;

    if (sb && sandbox_stop(sb, on_stopped, call, &e) < 0)
        ttrpc_call_fail(call, &e);
}

static void on_waited(void *userdata, const struct sandbox *sb)
{
    struct ttrpc_call *call = userdata;
    Pb__Sandbox__WaitSandboxResponse response = PB__SANDBOX__WAIT_SANDBOX_RESPONSE__INIT;

    response.exited_at = pb_timestamp_new(sb->exited_at);
    ttrpc_call_reply(call, &response.base);
    pb_free(response.exited_at ? &response.exited_at->base : NULL);
}

static void handle_wait(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__WaitSandboxRequest *r = (const void *)message;
    struct sandbox *sb = find_sandbox(call, r->sandbox_id);
    struct err e = ERR_INIT;

    if (sb && sandbox_wait(sb, on_waited, call, &e) < 0)
        ttrpc_call_fail(call, &e);
}

static void handle_status(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__SandboxStatusRequest *r = (const void *)message;
    Pb__Sandbox__SandboxStatusResponse response = PB__SANDBOX__SANDBOX_STATUS_RESPONSE__INIT;
    Pb__Sandbox__SandboxStatusResponse__InfoEntry netns =
        PB__SANDBOX__SANDBOX_STATUS_RESPONSE__INFO_ENTRY__INIT;
    Pb__Sandbox__SandboxStatusResponse__InfoEntry *info[] = {&netns};
    struct sandbox *sb = find_sandbox(call, r->sandbox_id);

    if (!sb)
        return;
    response.sandbox_id = sb->id;
    response.pid = (uint32_t)getpid();
    response.state = (char *)(sb->state == SANDBOX_READY ? "SANDBOX_READY" : "SANDBOX_NOTREADY");
    if (r->verbose && sb->netns_path) {
        netns.key = (char *)"netns";
        netns.value = sb->netns_path;
        response.info = info;
        response.n_info = ARRAY_SIZE(info);
    }
    response.created_at = pb_timestamp_new(sb->created_at);
    response.exited_at = pb_timestamp_new(sb->exited_at);
    ttrpc_call_reply(call, &response.base);
    pb_free(response.created_at ? &response.created_at->base : NULL);
    pb_free(response.exited_at ? &response.exited_at->base : NULL);
}

static void handle_ping(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__PingRequest *r = (const void *)message;
    Pb__Sandbox__PingResponse response = PB__SANDBOX__PING_RESPONSE__INIT;

    if (find_sandbox(call, r->sandbox_id))
        ttrpc_call_reply(call, &response.base);
}

/* Without a sandbox this is what follows a Create that failed. */
static void handle_shut_down(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__ShutdownSandboxRequest *r = (const void *)message;
    Pb__Sandbox__ShutdownSandboxResponse response = PB__SANDBOX__SHUTDOWN_SANDBOX_RESPONSE__INIT;
    struct task_service *service = ttrpc_call_userdata(call);
    struct sandbox *sb = NULL;

    if (service->shim->sandbox && !(sb = find_sandbox(call, r->sandbox_id)))
        return;
    ttrpc_call_reply(call, &response.base);
    if (sb) {
        sandbox_shut_down(sb);
    } else if (shim_is_empty(service->shim)) {
        service->shim->is_leaving = true;
        service->shutdown(service);
    }
}

/* Of the control group that the sandbox's configuration names, if there is one. */
static Google__Protobuf__Any *find_metrics(const struct sandbox *sb)
{
    _cleanup_(oci_config_done) struct oci_config config = {};
    _cleanup_(cgroup_done) struct cgroup cgroup = {};
    Google__Protobuf__Any *stats = NULL;

    if (oci_config_load(sb->bundle, &config, NULL) < 0 || str_empty(config.cgroups_path) ||
        cgroup_init_path(&cgroup, config.cgroups_path) < 0 ||
        cgroup_stats(&cgroup, &stats, NULL) < 0)
        return NULL;
    return stats;
}

static void handle_metrics(struct ttrpc_call *call, const ProtobufCMessage *message)
{
    const Pb__Sandbox__SandboxMetricsRequest *r = (const void *)message;
    Pb__Sandbox__SandboxMetricsResponse response = PB__SANDBOX__SANDBOX_METRICS_RESPONSE__INIT;
    Pb__Types__Metric metric = PB__TYPES__METRIC__INIT;
    struct sandbox *sb = find_sandbox(call, r->sandbox_id);

    if (!sb)
        return;
    metric.id = sb->id;
    metric.timestamp = pb_timestamp_new(clock_realtime());
    metric.data = find_metrics(sb);
    response.metrics = &metric;
    ttrpc_call_reply(call, &response.base);
    pb_free(metric.timestamp ? &metric.timestamp->base : NULL);
    pb_free(metric.data ? &metric.data->base : NULL);
}

static const struct ttrpc_method methods[] = {
    {"CreateSandbox", &pb__sandbox__create_sandbox_request__descriptor, handle_create},
    {"PingSandbox", &pb__sandbox__ping_request__descriptor, handle_ping},
    {"Platform", &pb__sandbox__platform_request__descriptor, handle_platform},
    {"SandboxMetrics", &pb__sandbox__sandbox_metrics_request__descriptor, handle_metrics},
    {"SandboxStatus", &pb__sandbox__sandbox_status_request__descriptor, handle_status},
    {"ShutdownSandbox", &pb__sandbox__shutdown_sandbox_request__descriptor, handle_shut_down},
    {"StartSandbox", &pb__sandbox__start_sandbox_request__descriptor, handle_start},
    {"StopSandbox", &pb__sandbox__stop_sandbox_request__descriptor, handle_stop},
    {"WaitSandbox", &pb__sandbox__wait_sandbox_request__descriptor, handle_wait},
};

const struct ttrpc_service sandbox_service = {"containerd.runtime.sandbox.v1.Sandbox", methods,
                                              ARRAY_SIZE(methods)};

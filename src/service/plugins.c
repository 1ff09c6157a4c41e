/* SPDX-License-Identifier: Apache-2.0 */
#include "service/plugins.h"

#include <stdio.h>

#include "base/str.h"
#include "store/snapshots.h"

#define T(type) "io.containerd." type
#define CONTENT T("content.v1")
#define SNAPSHOTTER T("snapshotter.v1")
#define METADATA T("metadata.v1")
#define DIFFER T("differ.v1")
#define EVENT T("event.v1")
#define GC T("gc.v1")
#define SERVICE T("service.v1")
#define RUNTIME T("runtime.v2")
#define RUNTIME_V1 T("runtime.v1")
#define MONITOR T("monitor.v1")
#define GRPC T("grpc.v1")

#define ID_MAX 256

/* clang-format off */
const struct plugin plugins[] = {
    {CONTENT, "content"},
    {SNAPSHOTTER, NULL},
    {METADATA, "bolt", {CONTENT, SNAPSHOTTER}},
    {DIFFER, "walking", {METADATA}, true, "diff"},
    {EVENT, "exchange"},
    {GC, "scheduler", {METADATA}},
    {SERVICE, "introspection-service", .service = "introspection"},
    {SERVICE, "containers-service", {EVENT, METADATA}, .service = "containers"},
    {SERVICE, "content-service", {EVENT, METADATA}, .service = "content"},
    {SERVICE, "diff-service", {DIFFER}, .service = "diff"},
    {SERVICE, "images-service", {METADATA, GC}, .service = "images"},
    {SERVICE, "leases-service", {METADATA}, .service = "leases"},
    {SERVICE, "namespaces-service", {EVENT, METADATA}, .service = "namespaces"},
    {SERVICE, "snapshots-service", {EVENT, METADATA}, .service = "snapshots"},
    {RUNTIME_V1, "linux", {EVENT, METADATA}, true, "runtime-v1"},
    {RUNTIME, "task", {EVENT, METADATA}, true, "tasks"},
    {MONITOR, "cgroups", {EVENT}, true},
    {SERVICE, "tasks-service", {EVENT, RUNTIME, METADATA, MONITOR}, .service = "tasks"},
    {GRPC, "introspection", {SERVICE}, .service = "introspection"},
    {GRPC, "containers", {SERVICE}, .service = "containers"},
    {GRPC, "content", {SERVICE}, .service = "content"},
    {GRPC, "diff", {SERVICE}, .service = "diff"},
    {GRPC, "events", {EVENT}, .service = "events"},
    {GRPC, "healthcheck", .service = "healthcheck"},
    {GRPC, "images", {SERVICE}, .service = "images"},
    {GRPC, "leases", {SERVICE}, .service = "leases"},
    {GRPC, "namespaces", {SERVICE}, .service = "namespaces"},
    {GRPC, "snapshots", {SERVICE}, .service = "snapshots"},
    {GRPC, "tasks", {SERVICE}, .service = "tasks"},
    {GRPC, "version", .service = "version"},
};
/* clang-format on */
const size_t n_plugins = ARRAY_SIZE(plugins);

static bool has(char *const *list, const char *s)
{
    for (; list && *list; list++)
        if (str_eq(*list, s))
            return true;
    return false;
}

static bool is_disabled(const struct service_context *ctx, const struct plugin *p)
{
    char id[ID_MAX];

    snprintf(id, sizeof(id), "%s.%s", p->type, p->id);
    return p->service && has(ctx->disabled_plugins, id);
}

/* The list of differs, where it names the only one there is. */
static bool has_differ(const struct service_context *ctx)
{
    return !ctx->differs || has(ctx->differs, "walking");
}

const char *plugin_skipped(const struct service_context *ctx, const struct plugin *plugin)
{
    if (!plugin->service)
        return NULL;
    if (is_disabled(ctx, plugin))
        return PLUGIN_DISABLED;
    if (str_eq(plugin->type, DIFFER) || str_eq(plugin->type, RUNTIME))
        return NULL;
    if (str_eq(plugin->service, "diff") && !has_differ(ctx))
        return "no differ of the configured ones is there, \"walking\" is: skip plugin";
    /* Without any part of its line a service does not run: what is disabled first is the reason. */
    for (const struct plugin *p = plugins; p < plugin; p++)
        if (p->service && str_eq(p->service, plugin->service) && is_disabled(ctx, p))
            return "what it needs is disabled by the configuration: skip plugin";
    return NULL;
}

/* "containerd.services.images.v1.Images" is served by the plugin "images". */
static bool serves(const struct plugin *p, const char *service)
{
    const char *rest;

    if (!str_eq(p->type, GRPC))
        return false;
    if (str_eq(p->id, "healthcheck"))
        return str_after_prefix(service, "grpc.health.") != NULL;
    rest = str_after_prefix(service, "containerd.services.");
    rest = rest ? str_after_prefix(rest, p->id) : NULL;
    return rest && *rest == '.';
}

const char *plugin_service_skipped(const struct service_context *ctx, const char *service)
{
    for (const struct plugin *p = plugins; p < plugins + n_plugins; p++)
        if (serves(p, service))
            return plugin_skipped(ctx, p);
    return NULL;
}

/* Whether there is such a plugin, whether it can be left out, and why it does not run. */
static bool find(const struct service_context *ctx, const char *id, bool *ret_optional,
                 const char **ret_skipped)
{
    const char *name, *root;
    char full[ID_MAX];

    for (size_t i = 0; snapshotters_at(ctx->snapshotters, i, &name, &root, ret_skipped); i++) {
        snprintf(full, sizeof(full), SNAPSHOTTER ".%s", name);
        *ret_optional = true;
        if (str_eq(full, id))
            return true;
    }
    for (const struct plugin *p = plugins; p < plugins + n_plugins; p++) {
        if (!p->id)
            continue;
        snprintf(full, sizeof(full), "%s.%s", p->type, p->id);
        *ret_optional = p->service != NULL;
        *ret_skipped = plugin_skipped(ctx, p);
        if (str_eq(full, id))
            return true;
    }
    return false;
}

static int warn(char ***list, const char *before, const char *name, const char *after,
                struct err *e)
{
    _free_ char *s = str_printf("%s%s%s", before, name, after);

    return s && strv_push(list, s) == 0 ? 0 : err_oom(e);
}

int plugins_check(const struct service_context *ctx, char *const *required, char ***ret_warnings,
                  struct err *e)
{
    _cleanup_(strv_freep) char **warnings = NULL;
    const char *skipped;
    bool optional;
    int r = 0;

    for (; required && *required; required++) {
        if (!find(ctx, *required, &optional, &skipped))
            return err_set(e, ERR_FAILED_PRECONDITION,
                           "required plugin %s not included: wherryd has no such plugin, remove it "
                           "from required_plugins",
                           *required);
        if (skipped)
            return err_set(e, ERR_FAILED_PRECONDITION, "load required plugin %s: %s", *required,
                           skipped);
    }
    for (char *const *p = ctx->disabled_plugins; p && *p && r >= 0; p++)
        if (find(ctx, *p, &optional, &skipped) && !optional)
            r = warn(&warnings, "disabled_plugins: ", *p, " cannot be left out and runs", e);
    for (char *const *p = ctx->differs; p && *p && r >= 0; p++)
        if (!str_eq(*p, "walking"))
            r = warn(&warnings, "diff-service: differ ", *p, " is not there and is ignored", e);
    if (r >= 0 && !has_differ(ctx))
        r = warn(&warnings, "diff-service: the list of differs lacks ", "walking",
                 ", layers cannot be unpacked", e);
    if (r >= 0)
        *ret_warnings = TAKE(warnings);
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon is made of, under the names that clients and configuration files use for it.
 * Services, runtimes and snapshotters can be left out (disabled_plugins); the rest holds the daemon
 * together.
 */
#pragma once

#include "service/context.h"

#define PLUGIN_REQUIRES_MAX 6
#define PLUGIN_DISABLED "disabled by the configuration: skip plugin"

/* In the order in which containerd starts them. The one without id stands for all snapshotters. */
struct plugin {
    const char *type, *id;
    const char *requires[PLUGIN_REQUIRES_MAX];
    bool has_platform;
    /* The plugin of a gRPC service, or what it cannot do without: NULL for what cannot be left out.
     */
    const char *service;
};
extern const struct plugin plugins[];
extern const size_t n_plugins;

/* Why the plugin does not run; NULL if it does. `plugin` is an entry of `plugins` with an id. */
const char *plugin_skipped(const struct service_context *ctx, const struct plugin *plugin);
/* Why the gRPC service of this full name is not served; NULL if it is. */
const char *plugin_service_skipped(const struct service_context *ctx, const char *service);
/* What is asked for and cannot be: a sentence for the log each, to *ret (NULL-terminated,
 * strv_free()). FAILED_PRECONDITION for a plugin that is required and does not run. */
int plugins_check(const struct service_context *ctx, char *const *required, char ***ret_warnings,
                  struct err *e);

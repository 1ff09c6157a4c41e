/* SPDX-License-Identifier: Apache-2.0 */
/* version, info, events. */
#include <stdio.h>

#include "base/str.h"
#include "cli/command.h"
#include "cli/event_text.h"
#include "cli/json_out.h"
#include "cli/rpc.h"
#include "cli/table.h"
#include "services.events.v1.pb-c.h"
#include "services.introspection.v1.pb-c.h"
#include "services.version.v1.pb-c.h"

static int get_version(struct cli *cli, Pb__Version__VersionResponse **ret, struct err *e)
{
    Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;

    return RPC(cli, "version.v1.Version/Version", &empty, pb__version__version_response, ret, e);
}

static int cmd_version(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    _reply_ Pb__Version__VersionResponse *daemon = NULL;
    int r = get_version(cli, &daemon, e);

    if (cli->json) {
        json_t *object = json_object();

        json_put(object, "client", json_string(WHERRY_VERSION));
        json_put(object, "daemon", daemon ? json_text(daemon->version) : json_null());
        json_put(object, "revision", daemon ? json_text(daemon->revision) : json_null());
        json_put(object, "address", json_text(cli->address));
        return json_print(object, e) < 0 ? ERR_RETURN : r;
    }
    printf("client   %s\n", WHERRY_VERSION);
    if (r < 0)
        return r;
    printf("daemon   %s%s%s\naddress  %s\n", daemon->version,
           str_empty(daemon->revision) ? "" : ", revision ", str_or_empty(daemon->revision),
           cli->address);
    return 0;
}

static const char *plugin_export(const Pb__Introspection__Plugin *p, const char *key)
{
    for (size_t i = 0; i < p->n_exports; i++) {
        if (str_eq(p->exports[i]->key, key))
            return p->exports[i]->value;
    }
    return NULL;
}

struct info {
    Pb__Version__VersionResponse *version;
    Pb__Introspection__ServerResponse *server;
    Pb__Introspection__PluginsResponse *plugins;
    char *root; /* NULL: not told */
    size_t n_working;
};

static void info_done(struct info *i)
{
    pb_free((ProtobufCMessage *)i->version);
    pb_free((ProtobufCMessage *)i->server);
    pb_free((ProtobufCMessage *)i->plugins);
    free(i->root);
}

/* Every plugin has a directory of its own below the daemon's root and tells that one. */
static char *daemon_root(const Pb__Introspection__Plugin *p)
{
    const char *own = plugin_export(p, "root");
    const char *slash = own ? strrchr(own, '/') : NULL;

    return slash && slash != own ? strndup(own, (size_t)(slash - own)) : NULL;
}

static int gather(struct cli *cli, struct info *i, struct err *e)
{
    Google__Protobuf__Empty empty = GOOGLE__PROTOBUF__EMPTY__INIT;
    Pb__Introspection__PluginsRequest request = PB__INTROSPECTION__PLUGINS_REQUEST__INIT;
    int r = get_version(cli, &i->version, e);

    if (r == 0)
        r = RPC(cli, "introspection.v1.Introspection/Server", &empty,
                pb__introspection__server_response, &i->server, e);
    if (r == 0)
        r = RPC(cli, "introspection.v1.Introspection/Plugins", &request,
                pb__introspection__plugins_response, &i->plugins, e);
    for (size_t n = 0; r == 0 && n < i->plugins->n_plugins; n++) {
        const Pb__Introspection__Plugin *p = i->plugins->plugins[n];

        i->n_working += !p->init_err;
        if (!i->root)
            i->root = daemon_root(p);
    }
    return r;
}

static bool is_type(const Pb__Introspection__Plugin *p, const char *type)
{
    return str_eq(p->type, type) && !p->init_err;
}

static json_t *ids_of(const struct info *i, const char *type)
{
    json_t *ids = json_array();

    for (size_t n = 0; n < i->plugins->n_plugins; n++) {
        if (is_type(i->plugins->plugins[n], type))
            json_array_append_new(ids, json_text(i->plugins->plugins[n]->id));
    }
    return ids;
}

static void print_ids(const struct info *i, const char *label, const char *type)
{
    printf("%s", label);
    for (size_t n = 0; n < i->plugins->n_plugins; n++) {
        const Pb__Introspection__Plugin *p = i->plugins->plugins[n];
        if (is_type(p, type))
            printf(" %s", p->id);
    }
    printf("\n");
}

static int cmd_info(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    _cleanup_(info_done) struct info i = {};
    int r = gather(cli, &i, e);

    if (r < 0)
        return r;
    if (cli->json) {
        json_t *object = json_object();

        json_put(object, "version", json_text(i.version->version));
        json_put(object, "address", json_text(cli->address));
        json_put(object, "uuid", json_text(i.server->uuid));
        json_put(object, "pid", json_integer((json_int_t)i.server->pid));
        json_put(object, "root", i.root ? json_text(i.root) : json_null());
        json_put(object, "snapshotters", ids_of(&i, "io.containerd.snapshotter.v1"));
        json_put(object, "runtimes", ids_of(&i, "io.containerd.runtime.v2"));
        json_put(object, "plugins", json_integer((json_int_t)i.plugins->n_plugins));
        return json_print(object, e);
    }
    printf("version       %s\naddress       %s\nuuid          %s\n", i.version->version,
           cli->address, i.server->uuid);
    if (i.server->pid)
        printf("pid           %llu\n", (unsigned long long)i.server->pid);
    if (i.root)
        printf("root          %s\n", i.root);
    printf("plugins       %zu, %zu of them working\n", i.plugins->n_plugins, i.n_working);
    print_ids(&i, "snapshotters ", "io.containerd.snapshotter.v1");
    print_ids(&i, "runtimes     ", "io.containerd.runtime.v2");
    return 0;
}

static void on_event(void *userdata, ProtobufCMessage *m)
{
    const struct cli *cli = userdata;

    event_text_print((const Pb__Types__Envelope *)m, cli->json);
    fflush(stdout);
    pb_free(m);
}

static int cmd_events(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    Pb__Events__SubscribeRequest request = PB__EVENTS__SUBSCRIBE_REQUEST__INIT;
    _cleanup_(rpc_done) struct rpc rpc = {.message = on_event, .userdata = cli};
    int r = cli_catch_signals(cli, e);

    request.filters = argv;
    request.n_filters = (size_t)argc;
    if (r == 0)
        r = rpc_start(cli, &rpc, "events.v1.Events/Subscribe", &request.base,
                      &pb__types__envelope__descriptor, e);
    if (r == 0)
        r = rpc_wait(cli, &rpc, e);
    /* ctrl-c is how one leaves. */
    return r < 0 && cli->interrupted ? 0 : r;
}

const struct command commands_system[] = {
    {
        .name = "version",
        .usage = "",
        .summary = "show the versions of client and daemon",
        .run = cmd_version,
    },
    {
        .name = "info",
        .usage = "",
        .summary = "show facts about the daemon",
        .run = cmd_info,
    },
    {
        .name = "events",
        .usage = "[FILTER...]",
        .summary = "show what happens, until interrupted",
        .detail = "Without filters events of all namespaces. An example of a filter:\n"
                  "    'namespace==default,topic~=|^/tasks/|'",
        .max_args = -1,
        .run = cmd_events,
    },
    {},
};

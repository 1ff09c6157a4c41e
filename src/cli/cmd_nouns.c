/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's records as they are, for operators: NOUN ls. */
#include <stdio.h>

#include "base/str.h"
#include "cli/command.h"
#include "cli/image.h"
#include "cli/json_out.h"
#include "cli/rpc.h"
#include "cli/table.h"
#include "services.content.v1.pb-c.h"
#include "services.introspection.v1.pb-c.h"
#include "services.leases.v1.pb-c.h"
#include "services.namespaces.v1.pb-c.h"
#include "services.snapshots.v1.pb-c.h"
#include "services.tasks.v1.pb-c.h"

/* A list that is printed either way. */
struct listing {
    struct table table;
    json_t *array; /* NULL: a table */
};

static void listing_init(struct listing *l, const struct cli *cli, size_t n,
                         const char *const *headings)
{
    table_init(&l->table, n, headings);
    l->array = cli->json ? json_array() : NULL;
}

static int listing_end(struct listing *l, int r, struct err *e)
{
    json_t *array = TAKE(l->array);

    if (r < 0)
        json_decref(array);
    else if (array)
        r = json_print(array, e);
    else if (table_print(&l->table, stdout) < 0)
        r = err_oom(e);
    table_done(&l->table);
    return r;
}

static void cell_labels(struct table *t, void *const *entries, size_t n)
{
    _cleanup_(buf_done) struct buf text = BUF_INIT(65536);

    for (size_t i = 0; i < n; i++) {
        const struct pb_string_entry *entry = entries[i];
        if (buf_printf(&text, "%s%s=%s", i ? "," : "", entry->key, entry->value) < 0)
            break;
    }
    table_cellf(t, "%.*s", (int)text.len, text.len ? (const char *)buf_head(&text) : "");
}

static int namespaces_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"NAME", "LABELS"};
    Pb__Namespaces__ListNamespacesRequest request = PB__NAMESPACES__LIST_NAMESPACES_REQUEST__INIT;
    _reply_ Pb__Namespaces__ListNamespacesResponse *reply = NULL;
    struct listing l;
    int r;

    listing_init(&l, cli, ARRAY_SIZE(headings), headings);
    r = RPC(cli, "namespaces.v1.Namespaces/List", &request,
            pb__namespaces__list_namespaces_response, &reply, e);
    for (size_t i = 0; r == 0 && i < reply->n_namespaces; i++) {
        const Pb__Namespaces__Namespace *n = reply->namespaces[i];

        if (l.array) {
            json_t *object = json_object();
            json_put(object, "name", json_text(n->name));
            json_put(object, "labels", json_labels((void *const *)n->labels, n->n_labels));
            json_array_append_new(l.array, object);
        } else {
            table_cell(&l.table, n->name);
            cell_labels(&l.table, (void *const *)n->labels, n->n_labels);
        }
    }
    return listing_end(&l, r, e);
}

static void on_contents(void *userdata, ProtobufCMessage *m)
{
    struct listing *l = userdata;
    const Pb__Content__ListContentResponse *reply = (const Pb__Content__ListContentResponse *)m;

    for (size_t i = 0; i < reply->n_info; i++) {
        const Pb__Content__Info *info = reply->info[i];
        char size[TABLE_SIZE_MAX];

        if (l->array) {
            json_t *object = json_object();
            json_put(object, "digest", json_text(info->digest));
            json_put(object, "size", json_integer(info->size));
            json_put(object, "createdAt", json_time(info->created_at));
            json_put(object, "labels", json_labels((void *const *)info->labels, info->n_labels));
            json_array_append_new(l->array, object);
            continue;
        }
        table_format_size(info->size, size);
        table_cell(&l->table, info->digest);
        table_cell(&l->table, size);
        cell_labels(&l->table, (void *const *)info->labels, info->n_labels);
    }
    pb_free(m);
}

static int content_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"DIGEST", "SIZE", "LABELS"};
    Pb__Content__ListContentRequest request = PB__CONTENT__LIST_CONTENT_REQUEST__INIT;
    struct listing l;
    _cleanup_(rpc_done) struct rpc rpc = {.message = on_contents, .userdata = &l};
    int r;

    listing_init(&l, cli, ARRAY_SIZE(headings), headings);
    request.filters = argv;
    request.n_filters = (size_t)argc;
    r = rpc_start(cli, &rpc, "content.v1.Content/List", &request.base,
                  &pb__content__list_content_response__descriptor, e);
    if (r == 0)
        r = rpc_wait(cli, &rpc, e);
    return listing_end(&l, r, e);
}

static const char *kind_name(Pb__Snapshots__Kind kind)
{
    switch (kind) {
    case PB__SNAPSHOTS__KIND__VIEW:
        return "view";
    case PB__SNAPSHOTS__KIND__ACTIVE:
        return "active";
    case PB__SNAPSHOTS__KIND__COMMITTED:
        return "committed";
    default:
        return "unknown";
    }
}

static void on_snapshots(void *userdata, ProtobufCMessage *m)
{
    struct listing *l = userdata;
    const Pb__Snapshots__ListSnapshotsResponse *reply =
        (const Pb__Snapshots__ListSnapshotsResponse *)m;

    for (size_t i = 0; i < reply->n_info; i++) {
        const Pb__Snapshots__Info *info = reply->info[i];

        if (l->array) {
            json_t *object = json_object();
            json_put(object, "key", json_text(info->name));
            json_put(object, "parent", json_text(info->parent));
            json_put(object, "kind", json_string(kind_name(info->kind)));
            json_put(object, "createdAt", json_time(info->created_at));
            json_put(object, "labels", json_labels((void *const *)info->labels, info->n_labels));
            json_array_append_new(l->array, object);
        } else {
            table_cell(&l->table, info->name);
            table_cell(&l->table, info->parent);
            table_cell(&l->table, kind_name(info->kind));
        }
    }
    pb_free(m);
}

static int snapshots_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"KEY", "PARENT", "KIND"};
    Pb__Snapshots__ListSnapshotsRequest request = PB__SNAPSHOTS__LIST_SNAPSHOTS_REQUEST__INIT;
    struct listing l;
    _cleanup_(rpc_done) struct rpc rpc = {.message = on_snapshots, .userdata = &l};
    int r;

    listing_init(&l, cli, ARRAY_SIZE(headings), headings);
    request.snapshotter = (char *)image_snapshotter(NULL);
    request.filters = argv;
    request.n_filters = (size_t)argc;
    r = rpc_start(cli, &rpc, "snapshots.v1.Snapshots/List", &request.base,
                  &pb__snapshots__list_snapshots_response__descriptor, e);
    if (r == 0)
        r = rpc_wait(cli, &rpc, e);
    return listing_end(&l, r, e);
}

static int leases_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"ID", "LABELS"};
    Pb__Leases__ListRequest request = PB__LEASES__LIST_REQUEST__INIT;
    _reply_ Pb__Leases__ListResponse *reply = NULL;
    struct listing l;
    int r;

    listing_init(&l, cli, ARRAY_SIZE(headings), headings);
    request.filters = argv;
    request.n_filters = (size_t)argc;
    r = RPC(cli, "leases.v1.Leases/List", &request, pb__leases__list_response, &reply, e);
    for (size_t i = 0; r == 0 && i < reply->n_leases; i++) {
        const Pb__Leases__Lease *lease = reply->leases[i];

        if (l.array) {
            json_t *object = json_object();
            json_put(object, "id", json_text(lease->id));
            json_put(object, "createdAt", json_time(lease->created_at));
            json_put(object, "labels", json_labels((void *const *)lease->labels, lease->n_labels));
            json_array_append_new(l.array, object);
        } else {
            table_cell(&l.table, lease->id);
            cell_labels(&l.table, (void *const *)lease->labels, lease->n_labels);
        }
    }
    return listing_end(&l, r, e);
}

static const char *task_status_name(Pb__V1types__Status status)
{
    static const char *const names[] = {"unknown", "created", "running",
                                        "stopped", "paused",  "pausing"};

    return (unsigned)status < ARRAY_SIZE(names) ? names[status] : "unknown";
}

static int tasks_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"TASK", "PID", "STATUS", "EXIT"};
    Pb__Tasks__ListTasksRequest request = PB__TASKS__LIST_TASKS_REQUEST__INIT;
    _reply_ Pb__Tasks__ListTasksResponse *reply = NULL;
    struct listing l;
    int r;

    listing_init(&l, cli, ARRAY_SIZE(headings), headings);
    r = RPC(cli, "tasks.v1.Tasks/List", &request, pb__tasks__list_tasks_response, &reply, e);
    for (size_t i = 0; r == 0 && i < reply->n_tasks; i++) {
        const Pb__V1types__Process *task = reply->tasks[i];

        if (l.array) {
            json_t *object = json_object();
            json_put(object, "id", json_text(task->id));
            json_put(object, "pid", json_integer(task->pid));
            json_put(object, "status", json_string(task_status_name(task->status)));
            json_put(object, "exitStatus", json_integer(task->exit_status));
            json_put(object, "exitedAt", json_time(task->exited_at));
            json_array_append_new(l.array, object);
            continue;
        }
        table_cell(&l.table, task->id);
        table_cellf(&l.table, "%u", task->pid);
        table_cell(&l.table, task_status_name(task->status));
        if (task->status == PB__V1TYPES__STATUS__STOPPED)
            table_cellf(&l.table, "%u", task->exit_status);
        else
            table_cell(&l.table, NULL);
    }
    return listing_end(&l, r, e);
}

static json_t *plugin_json(const Pb__Introspection__Plugin *p)
{
    json_t *object = json_object(), *capabilities = json_array();

    for (size_t i = 0; i < p->n_capabilities; i++)
        json_array_append_new(capabilities, json_text(p->capabilities[i]));
    json_put(object, "type", json_text(p->type));
    json_put(object, "id", json_text(p->id));
    json_put(object, "capabilities", capabilities);
    json_put(object, "exports", json_labels((void *const *)p->exports, p->n_exports));
    json_put(object, "error", p->init_err ? json_text(p->init_err->message) : json_null());
    return object;
}

static int plugins_ls(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"TYPE", "ID", "STATUS"};
    Pb__Introspection__PluginsRequest request = PB__INTROSPECTION__PLUGINS_REQUEST__INIT;
    _reply_ Pb__Introspection__PluginsResponse *reply = NULL;
    struct listing l;
    int r;

    listing_init(&l, cli, ARRAY_SIZE(headings), headings);
    request.filters = argv;
    request.n_filters = (size_t)argc;
    r = RPC(cli, "introspection.v1.Introspection/Plugins", &request,
            pb__introspection__plugins_response, &reply, e);
    for (size_t i = 0; r == 0 && i < reply->n_plugins; i++) {
        const Pb__Introspection__Plugin *p = reply->plugins[i];
        const char *error = p->init_err ? p->init_err->message : NULL;

        if (l.array) {
            json_array_append_new(l.array, plugin_json(p));
            continue;
        }
        table_cell(&l.table, p->type);
        table_cell(&l.table, p->id);
        table_cell(&l.table, !error                                   ? "ok"
                             : str_has_suffix(error, ": skip plugin") ? "skip"
                                                                      : "error");
    }
    return listing_end(&l, r, e);
}

const struct command commands_nouns[] = {
    {.name = "content ls",
     .usage = "[FILTER...]",
     .summary = "list blobs",
     .max_args = -1,
     .run = content_ls},
    {.name = "leases ls",
     .usage = "[FILTER...]",
     .summary = "list leases",
     .max_args = -1,
     .run = leases_ls},
    {.name = "namespaces ls", .usage = "", .summary = "list namespaces", .run = namespaces_ls},
    {.name = "plugins ls",
     .usage = "[FILTER...]",
     .summary = "list the daemon's parts",
     .max_args = -1,
     .run = plugins_ls},
    {.name = "snapshots ls",
     .usage = "[FILTER...]",
     .summary = "list snapshots",
     .max_args = -1,
     .run = snapshots_ls},
    {.name = "tasks ls", .usage = "", .summary = "list tasks", .run = tasks_ls},
    {},
};

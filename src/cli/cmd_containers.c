/* SPDX-License-Identifier: Apache-2.0 */
/* ps and inspect. */
#include <stdio.h>

#include "base/clock.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/container.h"
#include "cli/image.h"
#include "cli/json_out.h"
#include "cli/logs.h"
#include "cli/table.h"
#include "oci/document.h"
#include "oci/reference.h"
#include "oci/spec.h"

#define COMMAND_SHOWN 40

struct ps_options {
    bool all, quiet;
};
static const struct flag ps_flags[] = {
    {"all", 'a', FLAG_BOOL, offsetof(struct ps_options, all), NULL, "also those that have ended"},
    {"quiet", 'q', FLAG_BOOL, offsetof(struct ps_options, quiet), NULL, "names alone"},
};
static const struct flag_table ps_table = FLAGS(ps_flags);

struct logs_flags {
    bool follow;
    const char *tail;
};
static const struct flag logs_flags[] = {
    {"follow", 'f', FLAG_BOOL, offsetof(struct logs_flags, follow), NULL,
     "go on until the container ends"},
    {"tail", 'n', FLAG_STRING, offsetof(struct logs_flags, tail), "LINES", "the last lines alone"},
};
static const struct flag_table logs_table = FLAGS(logs_flags);

static const char *status_name(const Pb__V1types__Process *task)
{
    if (!task)
        return "ended";
    switch (task->status) {
    case PB__V1TYPES__STATUS__CREATED:
        return "created";
    case PB__V1TYPES__STATUS__RUNNING:
        return "running";
    case PB__V1TYPES__STATUS__STOPPED:
        return "ended";
    case PB__V1TYPES__STATUS__PAUSED:
    case PB__V1TYPES__STATUS__PAUSING:
        return "paused";
    default:
        return "unknown";
    }
}

static bool is_live(const Pb__V1types__Process *task)
{
    return task && task->status != PB__V1TYPES__STATUS__STOPPED;
}

/* How a container ended: from its task, else from the labels that were kept of it. False: it never
 * ran, as far as anybody knows. */
static bool exit_of(const Pb__Containers__Container *c, const Pb__V1types__Process *task,
                    uint32_t *ret_status, struct timespec *ret_at)
{
    const char *status = container_label(c, LABEL_EXIT_STATUS);
    const char *at = container_label(c, LABEL_EXITED_AT);

    *ret_at = (struct timespec){};
    if (task) {
        *ret_status = task->exit_status;
        *ret_at = pb_timestamp_get(task->exited_at);
        return task->status == PB__V1TYPES__STATUS__STOPPED;
    }
    if (at)
        clock_parse_rfc3339(at, ret_at);
    return status && str_to_u32(status, ret_status) == 0;
}

static void cell_status(struct table *t, const Pb__Containers__Container *c,
                        const Pb__V1types__Process *task)
{
    char age[TABLE_AGE_MAX];
    struct timespec at;
    uint32_t status = 0;

    if (is_live(task)) {
        table_cell(t, status_name(task));
    } else if (!exit_of(c, task, &status, &at)) {
        table_cell(t, "created");
    } else if (at.tv_sec == 0) {
        table_cellf(t, "ended (%u)", status);
    } else {
        table_format_age(clock_realtime().tv_sec - at.tv_sec, age);
        table_cellf(t, "ended (%u) %s ago", status, age);
    }
}

static void cell_command(struct table *t, const Pb__Containers__Container *c)
{
    _cleanup_(spec_summary_done) struct spec_summary summary = {};
    _cleanup_(buf_done) struct buf text = BUF_INIT(4096);
    struct err ignored = ERR_INIT;

    if (!c->spec ||
        spec_summarise(c->spec->value.data, c->spec->value.len, &summary, &ignored) < 0) {
        table_cell(t, NULL);
        return;
    }
    for (char **arg = summary.args; arg && *arg; arg++) {
        if (buf_printf(&text, "%s%s", arg == summary.args ? "" : " ", *arg) < 0)
            break;
    }
    if (text.len > COMMAND_SHOWN)
        table_cellf(t, "%.*s...", COMMAND_SHOWN - 3, (const char *)buf_head(&text));
    else
        table_cellf(t, "%.*s", (int)text.len, text.len ? (const char *)buf_head(&text) : "");
}

static const Pb__V1types__Process *task_of(const Pb__Tasks__ListTasksResponse *tasks,
                                           const char *id)
{
    for (size_t i = 0; i < tasks->n_tasks; i++) {
        if (str_eq(tasks->tasks[i]->id, id))
            return tasks->tasks[i];
    }
    return NULL;
}

static json_t *ps_json(const Pb__Containers__Container *c, const Pb__V1types__Process *task)
{
    json_t *object = json_object();
    struct timespec at;
    uint32_t status = 0;
    bool ended = !is_live(task) && exit_of(c, task, &status, &at);

    json_put(object, "name", json_text(c->id));
    json_put(object, "image", json_text(c->image));
    json_put(object, "runtime", json_text(c->runtime ? c->runtime->name : ""));
    json_put(object, "status", json_string(!task && !ended ? "created" : status_name(task)));
    json_put(object, "pid", is_live(task) ? json_integer(task->pid) : json_null());
    json_put(object, "exitStatus", ended ? json_integer(status) : json_null());
    json_put(object, "createdAt", json_time(c->created_at));
    json_put(object, "labels", json_labels((void *const *)c->labels, c->n_labels));
    return object;
}

static int list_both(struct cli *cli, struct rpc *containers, struct rpc *tasks, struct err *e)
{
    Pb__Containers__ListContainersRequest a = PB__CONTAINERS__LIST_CONTAINERS_REQUEST__INIT;
    Pb__Tasks__ListTasksRequest b = PB__TASKS__LIST_TASKS_REQUEST__INIT;
    int r = rpc_start(cli, containers, "containers.v1.Containers/List", &a.base,
                      &pb__containers__list_containers_response__descriptor, e);

    if (r == 0)
        r = rpc_start(cli, tasks, "tasks.v1.Tasks/List", &b.base,
                      &pb__tasks__list_tasks_response__descriptor, e);
    if (r == 0)
        r = rpc_wait(cli, containers, e);
    return r < 0 ? r : rpc_wait(cli, tasks, e);
}

static void add_row(struct table *t, const Pb__Containers__Container *c,
                    const Pb__V1types__Process *task)
{
    _free_ char *image = reference_familiar(str_or_empty(c->image));
    char age[TABLE_AGE_MAX];

    table_format_age(clock_realtime().tv_sec - pb_timestamp_get(c->created_at).tv_sec, age);
    table_cell(t, c->id);
    table_cell(t, image);
    cell_command(t, c);
    table_cellf(t, "%s ago", age);
    cell_status(t, c, task);
    if (is_live(task))
        table_cellf(t, "%u", task->pid);
    else
        table_cell(t, NULL);
}

static int cmd_ps(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    static const char *const headings[] = {"NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "PID"};
    const struct ps_options *o = options;
    _cleanup_(rpc_done) struct rpc containers = RPC_INIT, tasks = RPC_INIT;
    _cleanup_(table_done) struct table t;
    const Pb__Containers__ListContainersResponse *list;
    json_t *array = json_array();
    int r;

    table_init(&t, ARRAY_SIZE(headings), headings);
    r = list_both(cli, &containers, &tasks, e);
    list = (const Pb__Containers__ListContainersResponse *)containers.reply;
    if (r == 0 && (!list || !tasks.reply))
        r = err_set(e, ERR_INTERNAL, "the daemon answered without a message");
    for (size_t i = 0; r == 0 && i < list->n_containers; i++) {
        const Pb__Containers__Container *c = list->containers[i];
        const Pb__V1types__Process *task =
            task_of((const Pb__Tasks__ListTasksResponse *)tasks.reply, c->id);

        if (!o->all && !is_live(task))
            continue;
        if (cli->json)
            json_array_append_new(array, ps_json(c, task));
        else if (o->quiet)
            printf("%s\n", c->id);
        else
            add_row(&t, c, task);
    }
    if (r < 0 || !cli->json)
        json_decref(array);
    if (r < 0)
        return r;
    if (cli->json)
        return json_print(array, e);
    if (!o->quiet && table_print(&t, stdout) < 0)
        return err_oom(e);
    return 0;
}

static json_t *parse_spec(const Pb__Containers__Container *c)
{
    struct err ignored = ERR_INIT;
    json_t *spec = NULL;

    if (!c->spec || document_parse(c->spec->value.data, c->spec->value.len, SPEC_MAX, "spec", &spec,
                                   &ignored) < 0)
        return json_null();
    return spec;
}

static json_t *task_json(const Pb__V1types__Process *p)
{
    json_t *task = json_object();

    json_put(task, "status", json_string(status_name(p)));
    json_put(task, "pid", json_integer(p->pid));
    json_put(task, "exitStatus",
             p->status == PB__V1TYPES__STATUS__STOPPED ? json_integer(p->exit_status)
                                                       : json_null());
    json_put(task, "exitedAt", json_time(p->exited_at));
    json_put(task, "terminal", json_boolean(p->terminal));
    json_put(task, "stdin", json_text(p->stdin));
    json_put(task, "stdout", json_text(p->stdout));
    json_put(task, "stderr", json_text(p->stderr));
    return task;
}

static int inspect_container(struct cli *cli, const char *id, json_t **ret, struct err *e)
{
    _reply_ Pb__Containers__GetContainerResponse *reply = NULL;
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    const Pb__Containers__Container *c;
    json_t *object;
    int r = container_get(cli, id, &reply, e);

    if (r == 0)
        r = container_task(cli, id, &task, e);
    if (r < 0)
        return r;
    c = reply->container;
    object = json_object();
    json_put(object, "kind", json_string("container"));
    json_put(object, "name", json_text(c->id));
    json_put(object, "image", json_text(c->image));
    json_put(object, "runtime", json_text(c->runtime ? c->runtime->name : ""));
    json_put(object, "snapshotter", json_text(c->snapshotter));
    json_put(object, "snapshotKey", json_text(c->snapshot_key));
    json_put(object, "createdAt", json_time(c->created_at));
    json_put(object, "updatedAt", json_time(c->updated_at));
    json_put(object, "labels", json_labels((void *const *)c->labels, c->n_labels));
    json_put(object, "task", task ? task_json(task->process) : json_null());
    json_put(object, "spec", parse_spec(c));
    *ret = object;
    return 0;
}

static int inspect_image(struct cli *cli, const char *name, json_t **ret, struct err *e)
{
    _reply_ Pb__Images__GetImageResponse *reply = NULL;
    _cleanup_(image_done) struct image i = {};
    _cleanup_(buf_done) struct buf bytes = {};
    json_t *object, *layers, *config = NULL;
    int r = image_get(cli, name, &reply, e);

    if (r == 0)
        r = image_load(cli, reply->image, &i, e);
    if (r == 0)
        r = content_read(cli, i.manifest.config.digest, IMAGE_CONFIG_MAX, &bytes, e);
    if (r == 0)
        r = document_parse(buf_head(&bytes), bytes.len, IMAGE_CONFIG_MAX, "configuration", &config,
                           e);
    if (r < 0)
        return r;
    object = json_object();
    json_put(object, "kind", json_string("image"));
    json_put(object, "name", json_text(i.name));
    json_put(object, "target", json_text(i.target_digest));
    json_put(object, "manifest", json_text(i.manifest_digest));
    json_put(object, "chainId", json_text(i.chain_id));
    json_put(object, "createdAt", json_time(reply->image->created_at));
    json_put(object, "labels",
             json_labels((void *const *)reply->image->labels, reply->image->n_labels));
    layers = json_array();
    for (size_t n = 0; n < i.manifest.n_layers; n++)
        json_array_append_new(layers, json_text(i.manifest.layers[n].digest));
    json_put(object, "layers", layers);
    json_put(object, "config", config);
    *ret = object;
    return 0;
}

static int cmd_inspect(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    json_t *array = json_array();
    int code = 0;

    for (int i = 0; i < argc; i++) {
        struct err first = ERR_INIT, second = ERR_INIT;
        json_t *object = NULL;
        int r = inspect_container(cli, argv[i], &object, &first);

        if (r < 0 && first.code != ERR_UNAVAILABLE)
            r = inspect_image(cli, argv[i], &object, &second);
        if (r == 0)
            json_array_append_new(array, object);
        else if (second.code == ERR_NOT_FOUND && first.code == ERR_NOT_FOUND)
            err_set(&first, ERR_NOT_FOUND, "no container and no image %s in namespace %s", argv[i],
                    cli->namespace_);
        if (r < 0)
            code = command_fail(
                first.code == ERR_NOT_FOUND && second.code != ERR_NOT_FOUND ? &second : &first,
                CLI_EXIT_ERROR);
    }
    return json_print(array, e) < 0 ? ERR_RETURN : code;
}

static int cmd_logs(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct logs_flags *o = options;
    struct logs_options l = {.follow = o->follow, .tail = -1};
    _reply_ Pb__Containers__GetContainerResponse *reply = NULL;
    uint32_t lines;
    int r;

    if (o->tail && !str_eq(o->tail, "all")) {
        if (str_to_u32(o->tail, &lines) < 0)
            return err_set(e, ERR_INVALID_ARGUMENT, "--tail: \"%s\" is no number of lines",
                           o->tail);
        l.tail = lines;
    }
    r = container_get(cli, argv[0], &reply, e);
    return r < 0 ? r : logs_print(cli, reply->container, &l, e);
}

const struct command commands_containers[] = {
    {
        .name = "ps",
        .usage = "[-a] [-q]",
        .summary = "list containers",
        .flags = &ps_table,
        .options_size = sizeof(struct ps_options),
        .run = cmd_ps,
    },
    {
        .name = "inspect",
        .usage = "CONTAINER|IMAGE...",
        .summary = "show all there is to know, as JSON",
        .min_args = 1,
        .max_args = -1,
        .run = cmd_inspect,
    },
    {
        .name = "logs",
        .usage = "[-f] [--tail LINES] CONTAINER",
        .summary = "show what a container that runs with -d has written",
        .flags = &logs_table,
        .options_size = sizeof(struct logs_flags),
        .min_args = 1,
        .max_args = 1,
        .run = cmd_logs,
    },
    {},
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/container.h"

#include <fcntl.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/checkpoint.h"
#include "cli/container_io.h"
#include "cli/process.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "services.snapshots.v1.pb-c.h"

#define KILL_TIMEOUT_MS 30000

int container_get(struct cli *cli, const char *id, Pb__Containers__GetContainerResponse **ret,
                  struct err *e)
{
    Pb__Containers__GetContainerRequest request = PB__CONTAINERS__GET_CONTAINER_REQUEST__INIT;
    int r;

    request.id = (char *)id;
    r = RPC(cli, "containers.v1.Containers/Get", &request, pb__containers__get_container_response,
            ret, e);
    if (r < 0 && e->code == ERR_NOT_FOUND)
        return err_set(e, ERR_NOT_FOUND,
                       "no container %s in namespace %s; \"wherry ps -a\" lists what is there", id,
                       cli->namespace_);
    if (r == 0 && !(*ret)->container) {
        pb_free(&(*ret)->base);
        *ret = NULL;
        return err_set(e, ERR_INTERNAL, "the daemon's answer holds no container");
    }
    return r;
}

const char *container_label(const Pb__Containers__Container *c, const char *key)
{
    for (size_t i = 0; i < c->n_labels; i++) {
        if (str_eq(c->labels[i]->key, key))
            return c->labels[i]->value;
    }
    return NULL;
}

int container_set_label(struct cli *cli, const char *id, const char *key, const char *value,
                        struct err *e)
{
    Pb__Containers__UpdateContainerRequest request = PB__CONTAINERS__UPDATE_CONTAINER_REQUEST__INIT;
    Pb__Containers__Container c = PB__CONTAINERS__CONTAINER__INIT;
    Pb__Containers__Container__LabelsEntry label = PB__CONTAINERS__CONTAINER__LABELS_ENTRY__INIT;
    Pb__Containers__Container__LabelsEntry *labels[] = {&label};
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    _free_ char *path = str_printf("labels.%s", key);

    if (!path)
        return err_oom(e);
    label.key = (char *)key;
    label.value = (char *)value;
    c.id = (char *)id;
    c.labels = labels;
    c.n_labels = 1;
    mask.paths = &path;
    mask.n_paths = 1;
    request.container = &c;
    request.update_mask = &mask;
    return RPC(cli, "containers.v1.Containers/Update", &request,
               pb__containers__update_container_response, NULL, e);
}

int container_task(struct cli *cli, const char *id, Pb__Tasks__GetResponse **ret, struct err *e)
{
    Pb__Tasks__GetRequest request = PB__TASKS__GET_REQUEST__INIT;
    int r;

    request.container_id = (char *)id;
    r = RPC(cli, "tasks.v1.Tasks/Get", &request, pb__tasks__get_response, ret, e);
    if (r < 0)
        return e->code == ERR_NOT_FOUND ? 0 : r;
    if ((*ret)->process)
        return 1;
    pb_free(&(*ret)->base);
    *ret = NULL;
    return 0;
}

int container_running(struct cli *cli, const char *id, Pb__Tasks__GetResponse **ret, struct err *e)
{
    _reply_ Pb__Containers__GetContainerResponse *c = NULL;
    int r = container_task(cli, id, ret, e);

    if (r == 1 && (*ret)->process->status != PB__V1TYPES__STATUS__STOPPED)
        return 0;
    if (r < 0)
        return r;
    if (r == 1) {
        pb_free(&(*ret)->base);
        *ret = NULL;
    } else {
        r = container_get(cli, id, &c, e);
        if (r < 0)
            return r;
    }
    return err_set(e, ERR_FAILED_PRECONDITION, "container %s is not running", id);
}

static void on_timeout(struct event_timer *t)
{
}

int container_wait(struct cli *cli, const char *id, int timeout_ms, uint32_t *ret_status,
                   struct err *e)
{
    Pb__Tasks__WaitRequest request = PB__TASKS__WAIT_REQUEST__INIT;
    _cleanup_(rpc_done) struct rpc rpc = RPC_INIT;
    struct event_timer timer = {};
    int r;

    request.container_id = (char *)id;
    r = rpc_start(cli, &rpc, "tasks.v1.Tasks/Wait", &request.base,
                  &pb__tasks__wait_response__descriptor, e);
    if (r < 0)
        return r;
    if (timeout_ms > 0) {
        event_timer_arm(&cli->loop, &timer, (uint64_t)timeout_ms, on_timeout);
        while (!rpc.done && timer.loop && !cli_gives_up(cli) && r >= 0)
            r = event_loop_turn(&cli->loop, -1);
        event_timer_disarm(&timer);
        if (!rpc.done && !cli_gives_up(cli))
            return 0;
    }
    r = rpc_wait(cli, &rpc, e);
    if (r < 0)
        return r;
    if (rpc.reply && ret_status)
        *ret_status = ((Pb__Tasks__WaitResponse *)rpc.reply)->exit_status;
    return 1;
}

static int keep_exit_labels(struct cli *cli, const char *id, const Pb__Tasks__DeleteResponse *ended,
                            struct err *e)
{
    Pb__Containers__UpdateContainerRequest request = PB__CONTAINERS__UPDATE_CONTAINER_REQUEST__INIT;
    Pb__Containers__Container c = PB__CONTAINERS__CONTAINER__INIT;
    Pb__Containers__Container__LabelsEntry labels[] = {
        PB__CONTAINERS__CONTAINER__LABELS_ENTRY__INIT,
        PB__CONTAINERS__CONTAINER__LABELS_ENTRY__INIT,
    };
    Pb__Containers__Container__LabelsEntry *list[] = {&labels[0], &labels[1]};
    char *paths[] = {(char *)"labels." LABEL_EXIT_STATUS, (char *)"labels." LABEL_EXITED_AT};
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    char status[16], at[CLOCK_RFC3339_MAX];

    snprintf(status, sizeof(status), "%u", ended->exit_status);
    clock_rfc3339(pb_timestamp_get(ended->exited_at), at);
    labels[0].key = (char *)LABEL_EXIT_STATUS;
    labels[0].value = status;
    labels[1].key = (char *)LABEL_EXITED_AT;
    labels[1].value = at;
    c.id = (char *)id;
    c.labels = list;
    c.n_labels = ARRAY_SIZE(list);
    mask.paths = paths;
    mask.n_paths = ARRAY_SIZE(paths);
    request.container = &c;
    request.update_mask = &mask;
    return RPC(cli, "containers.v1.Containers/Update", &request,
               pb__containers__update_container_response, NULL, e);
}

int container_delete_task(struct cli *cli, const char *id, bool keep_exit, struct err *e)
{
    Pb__Tasks__DeleteTaskRequest request = PB__TASKS__DELETE_TASK_REQUEST__INIT;
    _reply_ Pb__Tasks__DeleteResponse *reply = NULL;
    int r;

    request.container_id = (char *)id;
    r = RPC(cli, "tasks.v1.Tasks/Delete", &request, pb__tasks__delete_response, &reply, e);
    if (r < 0)
        return e->code == ERR_NOT_FOUND ? 0 : r;
    if (keep_exit)
        r = keep_exit_labels(cli, id, reply, e);
    return r < 0 && e->code == ERR_NOT_FOUND ? 0 : r;
}

int container_end_task(struct cli *cli, const char *id, bool force, struct err *e)
{
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    int r = container_task(cli, id, &task, e);

    if (r <= 0)
        return r;
    if (task->process->status != PB__V1TYPES__STATUS__STOPPED && !force)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "container %s is running; stop it first, or remove it with -f", id);
    /* One of unknown state is that of a shim which does not answer: SIGKILL ends that too. */
    if (task->process->status != PB__V1TYPES__STATUS__STOPPED) {
        r = process_kill(cli, id, "", SIGKILL, false, e);
        if (r < 0 && e->code != ERR_NOT_FOUND)
            return r;
        r = container_wait(cli, id, KILL_TIMEOUT_MS, NULL, e);
        if (r < 0 && e->code != ERR_NOT_FOUND)
            return r;
        if (r == 0)
            return err_set(e, ERR_DEADLINE_EXCEEDED,
                           "container %s did not end within %d seconds of SIGKILL", id,
                           KILL_TIMEOUT_MS / 1000);
    }
    container_io_remove_left(task->process->stdout);
    return container_delete_task(cli, id, false, e);
}

int container_remove_records(struct cli *cli, const char *id, const char *snapshotter,
                             const char *snapshot_key, struct err *e)
{
    Pb__Snapshots__RemoveSnapshotRequest snapshot = PB__SNAPSHOTS__REMOVE_SNAPSHOT_REQUEST__INIT;
    Pb__Containers__DeleteContainerRequest container =
        PB__CONTAINERS__DELETE_CONTAINER_REQUEST__INIT;
    _cleanup_(rpc_done) struct rpc a = RPC_INIT, b = RPC_INIT;
    int r = 0;

    snapshot.snapshotter = (char *)snapshotter;
    snapshot.key = (char *)snapshot_key;
    container.id = (char *)id;
    a.done = b.done = true;
    if (!str_empty(snapshot_key))
        r = rpc_start(cli, &a, "snapshots.v1.Snapshots/Remove", &snapshot.base,
                      &google__protobuf__empty__descriptor, e);
    if (r == 0 && !str_empty(id))
        r = rpc_start(cli, &b, "containers.v1.Containers/Delete", &container.base,
                      &google__protobuf__empty__descriptor, e);
    if (r < 0)
        return r;
    r = rpc_wait(cli, &a, e);
    if (r < 0 && e->code != ERR_NOT_FOUND) {
        rpc_wait(cli, &b, NULL);
        return err_wrap(e, "remove the filesystem %s", snapshot_key);
    }
    r = rpc_wait(cli, &b, e);
    if (r < 0 && e->code != ERR_NOT_FOUND)
        return err_wrap(e, "remove container %s", id);
    return 0;
}

static void remove_log(const Pb__Containers__Container *c)
{
    const char *path = container_label(c, LABEL_LOG_PATH);
    _free_ char *dir = NULL;
    char *slash;

    if (str_empty(path) || path[0] != '/')
        return;
    /* Labels can be written by anybody who may use the daemon; only a log of this very container is
     * removed by its label. */
    slash = strrchr(path, '/');
    dir = str_printf("%s.log", c->id);
    if (!dir || !str_eq(slash + 1, dir))
        return;
    unlink(path);
    free(dir);
    dir = strndup(path, (size_t)(slash - path));
    /* The namespace's directory and the one of all logs, when this was the last. */
    if (dir && rmdir(dir) == 0 && (slash = strrchr(dir, '/'))) {
        *slash = '\0';
        rmdir(dir);
    }
}

int container_remove(struct cli *cli, const Pb__Containers__Container *c, bool force, struct err *e)
{
    int r = container_end_task(cli, c->id, force, e);

    if (r >= 0)
        r = checkpoint_remove_all(cli, c->id, e);
    if (r >= 0)
        r = container_remove_records(cli, c->id, c->snapshotter, c->snapshot_key, e);
    if (r < 0)
        return r;
    remove_log(c);
    return 0;
}

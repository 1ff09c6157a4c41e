/* SPDX-License-Identifier: Apache-2.0 */
/* What a bundle says of the task that the last daemon made it for. */
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "oci/config.h"
#include "runtime/linux_bundle.h"
#include "runtime/linux_cgroup.h"
#include "runtime/tasks_private.h"

char *task_group_address(struct task *task, const char *suffix)
{
    _cleanup_(oci_config_done) struct oci_config config = {0};
    _free_ char *spec = NULL;
    const char *group = task->id;
    size_t len = 0;

    if (fs_read_file(task->bundle.dir_fd, "config.json", OCI_CONFIG_MAX, &spec, &len) >= 0 &&
        oci_config_parse(spec, len, &config, NULL) >= 0 && !str_empty(config.group))
        group = config.group;
    _free_ char *name = str_printf("%s%s", group, suffix);
    return name ? shim_socket_address(&task->tasks->options.host, task->ns, name) : NULL;
}

int task_find_endpoint(struct task *task, struct shim_endpoint *ret, struct err *e)
{
    struct tasks *t = task->tasks;

    if (task->is_linux) {
        ret->version = 1;
        ret->address = linux_bundle_read_address(&task->bundle);
        if (!ret->address)
            ret->address = shim_socket_address(&t->options.host, task->ns, task->id);
        return ret->address ? 0 : err_oom(e);
    }
    ret->version = 2;
    if (bundle_read_bootstrap(&task->bundle, &ret->address, &ret->version, NULL) >= 0)
        return 0;
    ret->address = task_group_address(task, "");
    return ret->address ? 0 : err_oom(e);
}

static bool is_same_program(const char *a, const char *b)
{
    const char *slash_a = strrchr(a, '/');
    const char *slash_b = strrchr(b, '/');

    return str_eq(slash_a ? slash_a + 1 : a, slash_b ? slash_b + 1 : b);
}

static int load_binary(struct tasks *t, struct task *task, struct err *e)
{
    task->binary.path = bundle_read_shim_binary(&task->bundle);
    if (!task->binary.path) {
        /* Not even the intent was written: no shim was started. */
        task->binary.path = strdup(t->options.own_shim);
        if (!task->binary.path)
            return err_oom(e);
    }
    task->binary.is_ours = str_eq(task->binary.path, t->options.own_shim);
    /* Ours may lie elsewhere since an upgrade, and the old one be gone. */
    if (!task->binary.is_ours && is_same_program(task->binary.path, t->options.own_shim) &&
        access(task->binary.path, X_OK) < 0) {
        free(task->binary.path);
        task->binary.path = strdup(t->options.own_shim);
        if (!task->binary.path)
            return err_oom(e);
        task->binary.is_ours = true;
    }
    return 0;
}

int task_load(struct task *task, struct err *e)
{
    struct tasks *t = task->tasks;

    if (!task->is_linux && load_binary(t, task, e) < 0)
        return ERR_RETURN;
    if (task->is_linux) {
        atomic_store(&task->exit_seen, linux_bundle_is_exit_told(&task->bundle));
        linux_open_logs(task);
        task->group = linux_cgroup_new(task, 0);
        if (task->group)
            linux_cgroup_watch(task->group);
    } else {
        /* Ours drops the lines that nobody takes; others may wait for a reader. */
        bool is_wanted = !task->binary.is_ours || log_get_level() <= LOG_DEBUG;
        task->log = is_wanted ? shim_log_open(t->loop, &task->bundle) : NULL;
    }
    return 0;
}

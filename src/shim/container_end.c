/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/container_end.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/mount.h"

struct ending {
    struct process *init; /* a reference */
    struct process_exit exit;
};

static void on_deleted(void *userdata, const struct err *e)
{
    struct ending *ending = userdata;

    if (e && e->code != ERR_NOT_FOUND)
        log_warn("container %s stays: %s", process_id(ending->init), e->msg);
    process_unref(ending->init);
    free(ending);
}

static void delete_ended(void *userdata, _unused_ const struct process_exit *exit)
{
    struct ending *ending = userdata;

    process_delete(ending->init, &ending->exit, on_deleted, ending);
}

/* By its group, which also ends what is paused. */
bool container_kill_all(struct container *c)
{
    c->is_killed = true;
    if (cgroup_is_known(&c->cgroup) && cgroup_kill(&c->cgroup) > 0)
        return true;
    return child_is_alive(&c->init->child) && proc_kill(&c->init->child.proc, SIGKILL) == 0;
}

void container_unmount_state(const struct container *c)
{
    _free_ char *state = fs_join(c->runtime.root, c->id);
    int r = state ? mount_unmount_below(state) : -ENOMEM;

    if (r < 0)
        log_warn("unmount what the OCI runtime left of container %s: %s", c->id, err_strerror(r));
}

void container_remove_state(const struct container *c)
{
    _free_ char *state = fs_join(c->runtime.root, c->id);

    if (state && !fs_exists(AT_FDCWD, state))
        return;
    container_unmount_state(c);
    int r = state ? fs_rm_rf(AT_FDCWD, state) : -ENOMEM;
    if (r < 0 && r != -ENOENT)
        log_warn("remove what the OCI runtime kept of container %s: %s", c->id, err_strerror(r));
}

void container_delete_state(struct container *c)
{
    log_warn("container %s is deleted without its OCI runtime: %s is missing", c->id,
             c->runtime.path);
    container_kill_all(c);
    container_remove_state(c);
    c->lost_runtime = true; /* so its groups go at its release */
}

static void container_end(struct container *c)
{
    struct process *init = c->init;
    struct ending *ending = calloc(1, sizeof(*ending));
    struct err e = ERR_INIT;

    if (!ending) {
        container_abandon(c);
        return;
    }
    ending->init = process_ref(init);
    /* One that is being made, or was never started, is deleted with its process, when it is its
     * turn. */
    if (init->state == PROCESS_CREATING || init->state == PROCESS_CREATED) {
        delete_ended(ending, NULL);
        return;
    }
    container_kill_all(c);
    if (process_wait(init, delete_ended, ending, &e) < 0)
        on_deleted(ending, &e);
}

void containers_end(struct shim *s)
{
    size_t n = 0;
    /* The map changes meanwhile. */
    struct container **all = calloc(s->containers.n + 1, sizeof(struct container *));

    if (!all)
        return;
    MAP_FOREACH (entry, &s->containers)
        all[n++] = container_ref(entry->value);
    for (size_t i = 0; i < n; i++) {
        container_end(all[i]);
        container_unref(all[i]);
    }
    free(all);
}

void container_abandon(struct container *c)
{
    container_kill_all(c);
    if (c->n_mounts > 0)
        mount_unmount_below(c->rootfs);
    if (cgroup_is_known(&c->cgroup))
        cgroup_remove(&c->cgroup);
}

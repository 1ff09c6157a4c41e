/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/container.h"

#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "shim/sandbox.h"
#include "shim/topics.h"

struct container *container_ref(struct container *c)
{
    c->refs++;
    return c;
}

struct container *container_unref(struct container *c)
{
    if (!c || --c->refs > 0)
        return NULL;
    struct shim *s = c->shim;
    event_timer_disarm(&c->end_timer);
    oom_done(&c->oom);
    cgroup_done(&c->cgroup);
    runtime_done(&c->runtime);
    options_done(&c->options);
    map_done(&c->execs);
    free(c->checkpoint);
    free(c->parent_checkpoint);
    free(c->rootfs);
    free(c->bundle);
    free(c->id);
    list_remove(&c->link);
    free(c);
    if (s->idle)
        s->idle(s);
    return NULL;
}

struct container *container_find(const struct shim *s, const char *id, struct err *e)
{
    struct container *c = map_get(&s->containers, str_or_empty(id));

    if (!c || c->init->state == PROCESS_CREATING) {
        err_set(e, ERR_NOT_FOUND, "container not created: not found");
        return NULL;
    }
    return c;
}

struct process *container_find_creating(const struct shim *s, const char *id)
{
    struct container *c = map_get(&s->containers, str_or_empty(id));

    return c && c->init->state == PROCESS_CREATING ? c->init : NULL;
}

struct process *container_process(struct container *c, const char *exec_id, struct err *e)
{
    if (str_empty(exec_id))
        return c->init;
    struct process *p = map_get(&c->execs, exec_id);
    if (!p)
        err_set(e, ERR_NOT_FOUND, "process does not exist %s: not found", exec_id);
    return p;
}

struct process *container_process_by_pid(struct container *c, pid_t pid)
{
    if (c->init->exit.pid == pid)
        return c->init;
    MAP_FOREACH (entry, &c->execs) {
        struct process *p = entry->value;
        if (p->exit.pid == pid && p->state == PROCESS_RUNNING)
            return p;
    }
    return NULL;
}

void container_publish(struct container *c, const char *topic, const ProtobufCMessage *event)
{
    if (!c->shim->v1) /* there the daemon tells what it asked for */
        c->shim->publish(c->shim, topic, event);
}

/* Nothing of it is known to clients any more. The map's reference goes to the caller. */
static void forget(struct container *c)
{
    struct shim *s = c->shim;

    event_timer_disarm(&c->end_timer);
    oom_done(&c->oom);
    map_remove(&s->containers, c->id);
    if (s->sandbox)
        sandbox_remove_container(s->sandbox, c);
    while (c->execs.n > 0) {
        struct process *last = NULL;
        MAP_FOREACH (entry, &c->execs)
            last = entry->value;
        map_remove(&c->execs, last->exec_id);
        last->state = PROCESS_DELETED;
        stdio_hurry(&last->io);
        process_unref(last);
    }
    s->changed(s);
}

void container_cut_short(struct container *c)
{
    runtime_close(&c->runtime);
    stdio_hurry(&c->init->io);
    MAP_FOREACH (entry, &c->execs) {
        struct process *p = entry->value;
        stdio_hurry(&p->io);
    }
}

void container_forget(struct container *c)
{
    process_unref(c->init);
    forget(c);
    container_unref(c);
}

static void on_oom(struct oom *oom)
{
    struct container *c = container_of(oom, struct container, oom);
    Pb__Event__TaskOOM event = PB__EVENT__TASK_OOM__INIT;

    event.container_id = c->id;
    c->shim->publish(c->shim, TOPIC_OOM, &event.base);
}

/* The group is learned while init is alive, or at least not reaped. */
void container_find_cgroup(struct container *c)
{
    int r = cgroup_init(&c->cgroup, c->init->exit.pid);
    if (r >= 0)
        r = cgroup_save(&c->cgroup, c->bundle);
    if (r >= 0 && c->shim->sandbox)
        sandbox_keep_files(c->shim->sandbox, c);
    if (r >= 0 && !c->shim->v1)
        r = oom_watch(&c->oom, c->shim->loop, &c->cgroup, on_oom);
    if (r < 0)
        log_warn("container %s: no metrics and no word of memory shortage: %s", c->id,
                 err_strerror(r));
}

void container_has_started(struct container *c)
{
    Pb__Event__TaskStart event = PB__EVENT__TASK_START__INIT;

    c->init->state = PROCESS_RUNNING;
    event.container_id = c->id;
    event.pid = (uint32_t)c->init->exit.pid;
    container_publish(c, TOPIC_START, &event.base);
}

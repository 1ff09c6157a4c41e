/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/linux_cgroup.h"

#include "base/log.h"
#include "events.pb-c.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

struct linux_cgroup *linux_cgroup_new(struct task *task, pid_t pid)
{
    struct linux_cgroup *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->task = task;
    g->oom = (struct oom)OOM_INIT;
    int r = pid ? cgroup_init(&g->cgroup, pid) : cgroup_load(&g->cgroup, task->bundle.path);
    if (r >= 0 && pid)
        r = cgroup_save(&g->cgroup, task->bundle.path);
    if (r < 0) {
        /* A bundle without a note of it: its container was not made yet. */
        if (pid || r != -ENOENT)
            log_warn("find the control group of task %s: %s", task->key, err_strerror(r));
        return linux_cgroup_free(g);
    }
    return g;
}

struct linux_cgroup *linux_cgroup_free(struct linux_cgroup *g)
{
    if (!g)
        return NULL;
    oom_done(&g->oom);
    cgroup_done(&g->cgroup);
    free(g);
    return NULL;
}

static void out_of_memory(struct oom *oom)
{
    struct task *task = container_of(oom, struct linux_cgroup, oom)->task;
    Pb__Event__TaskOOM event = PB__EVENT__TASK_OOM__INIT;
    struct err e = ERR_INIT;

    event.container_id = task->id;
    if (exchange_publish(task->tasks->exchange, task->ns, "/tasks/oom", &event.base, &e) < 0)
        log_warn("publish /tasks/oom of task %s: %s", task->key, e.msg);
}

void linux_cgroup_watch(struct linux_cgroup *g)
{
    int r = oom_watch(&g->oom, g->task->tasks->loop, &g->cgroup, out_of_memory);
    if (r < 0)
        log_warn("watch task %s for want of memory: %s", g->task->key, err_strerror(r));
}

void linux_cgroup_look(struct linux_cgroup *g)
{
    oom_check(&g->oom);
}

void linux_cgroup_unwatch(struct linux_cgroup *g)
{
    if (!g)
        return;
    oom_check(&g->oom);
    oom_done(&g->oom);
}

/* Files are read on the pool; question and answer are the loop's. */
struct stats_job {
    struct workq_job job;
    struct event_post post;
    struct task *task;
    Google__Protobuf__Any *stats;
    struct err err;
    shim_reply_fn fn;
    void *userdata;
};

static void stats_answer(struct event_post *post)
{
    struct stats_job *job = container_of(post, struct stats_job, post);
    Pb__Task__StatsResponse *reply = job->stats ? malloc(sizeof(*reply)) : NULL;

    if (reply) {
        pb__task__stats_response__init(reply);
        reply->stats = job->stats;
        job->fn(job->userdata, NULL, &reply->base);
    } else {
        if (job->err.code == ERR_OK)
            err_oom(&job->err);
        if (job->stats)
            pb_free(&job->stats->base);
        job->fn(job->userdata, &job->err, NULL);
    }
    task_unref(job->task);
    free(job);
}

static void stats_run(struct workq_job *work)
{
    struct stats_job *job = container_of(work, struct stats_job, job);

    (void)cgroup_stats(&job->task->group->cgroup, &job->stats, &job->err);
    event_loop_post(job->task->tasks->loop, &job->post, stats_answer);
}

void linux_cgroup_stats(struct task *task, shim_reply_fn fn, void *userdata)
{
    struct err e = ERR_INIT;
    struct stats_job *job = task->group ? calloc(1, sizeof(*job)) : NULL;

    if (!task->group)
        err_set(&e, ERR_NOT_FOUND, "cgroup does not exist: not found");
    else if (!job)
        err_oom(&e);
    if (job) {
        job->task = task_ref(task);
        job->fn = fn;
        job->userdata = userdata;
        if (workq_submit(task->tasks->pool, &job->job, stats_run) >= 0)
            return;
        err_set(&e, ERR_RESOURCE_EXHAUSTED, "no thread to read the metrics of task %s", task->id);
        task_unref(job->task);
        free(job);
    }
    fn(userdata, &e, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "service/tasks_list.h"

#include "base/clock.h"
#include "base/str.h"
#include "service/tasks_forward.h"
#include "services.tasks.v1.pb-c.h"
#include "wire/pb.h"

struct gather;

/* One task that is being asked. */
struct ask {
    struct gather *gather;
    struct task *task;
    union {
        ProtobufCMessage base;
        Pb__Task__StateRequest state;
        Pb__Task__StatsRequest stats;
    } request;
    ProtobufCMessage *answer; /* Process or Metric; NULL: left out */
};

struct gather {
    struct grpc_call *call;
    size_t pending;
    struct ask *asks;
    size_t n;
    bool metrics;
};

/* The answers that came, in order of the tasks; the array is the caller's. */
static size_t gather_collect(struct gather *g, void **to)
{
    size_t n = 0;

    for (size_t i = 0; i < g->n; i++)
        if (g->asks[i].answer)
            to[n++] = TAKE(g->asks[i].answer);
    return n;
}

static void gather_finish(struct gather *g)
{
    Pb__Tasks__ListTasksResponse list = PB__TASKS__LIST_TASKS_RESPONSE__INIT;
    Pb__Tasks__MetricsResponse metrics = PB__TASKS__METRICS_RESPONSE__INIT;
    struct err e = ERR_INIT;
    void **items = calloc(g->n + 1, sizeof(void *));
    size_t n = items ? gather_collect(g, items) : 0;

    list.tasks = (Pb__V1types__Process **)items;
    list.n_tasks = n;
    metrics.metrics = (Pb__Types__Metric **)items;
    metrics.n_metrics = n;
    if (!items)
        err_oom(&e);
    if (items)
        grpc_call_reply(g->call, g->metrics ? &metrics.base : &list.base);
    else
        grpc_call_finish(g->call, &e);

    for (size_t i = 0; i < n; i++)
        pb_free(items[i]);
    for (size_t i = 0; i < g->n; i++) {
        pb_free(g->asks[i].answer);
        task_unref(g->asks[i].task);
    }
    free(items);
    grpc_call_unref(g->call);
    free(g->asks);
    free(g);
}

static ProtobufCMessage *metric_from_stats(const struct task *task, Pb__Task__StatsResponse *stats)
{
    Pb__Types__Metric *m = malloc(sizeof(*m));
    if (!m)
        return NULL;
    pb__types__metric__init(m);
    m->timestamp = pb_timestamp_new(clock_realtime());
    m->id = strdup(task->id);
    m->data = TAKE(stats->stats);
    if (!m->id || !m->timestamp) {
        pb_free(&m->base);
        return NULL;
    }
    return &m->base;
}

/* A task whose shim does not answer is there all the same. */
static ProtobufCMessage *unknown_process(const struct task *task)
{
    Pb__V1types__Process *p = malloc(sizeof(*p));
    if (!p)
        return NULL;
    pb__v1types__process__init(p);
    p->id = strdup(task->id);
    if (!p->id) {
        p->id = (char *)protobuf_c_empty_string;
        pb_free(&p->base);
        return NULL;
    }
    return &p->base;
}

static void ask_answered(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    struct ask *ask = userdata;
    struct gather *g = ask->gather;

    if (!e && g->metrics) {
        ask->answer = metric_from_stats(ask->task, (Pb__Task__StatsResponse *)reply);
    } else if (!e) {
        Pb__V1types__Process *p = process_from_state((Pb__Task__StateResponse *)reply);
        ask->answer = p ? &p->base : NULL;
    } else if (!g->metrics && e->code != ERR_NOT_FOUND) {
        ask->answer = unknown_process(ask->task);
    }
    if (reply)
        pb_free(reply);
    if (--g->pending == 0)
        gather_finish(g);
}

/* Takes the tasks and their array. */
static void gather_start(struct grpc_call *call, struct task **tasks, size_t n, bool metrics)
{
    const struct service_context *ctx = grpc_call_userdata(call);
    struct gather *g = calloc(1, sizeof(*g));
    struct ask *asks = calloc(n + 1, sizeof(*asks));

    if (!g || !asks) {
        struct err e = ERR_INIT;
        err_oom(&e);
        grpc_call_finish(call, &e);
        for (size_t i = 0; i < n; i++)
            task_unref(tasks[i]);
        free(tasks);
        free(asks);
        free(g);
        return;
    }
    /* One more than asked, so that answers that come at once do not end it early. */
    *g = (struct gather){grpc_call_ref(call), n + 1, asks, n, metrics};
    for (size_t i = 0; i < n; i++) {
        struct ask *ask = &asks[i];
        ask->gather = g;
        ask->task = tasks[i];
        if (metrics) {
            pb__task__stats_request__init(&ask->request.stats);
            ask->request.stats.id = tasks[i]->id;
        } else {
            pb__task__state_request__init(&ask->request.state);
            ask->request.state.id = tasks[i]->id;
        }
    }
    free(tasks);
    for (size_t i = 0; i < n; i++)
        task_call(asks[i].task, metrics ? "Stats" : "State", &asks[i].request.base,
                  metrics ? &pb__task__stats_response__descriptor
                          : &pb__task__state_response__descriptor,
                  ctx->state_timeout_ms, ask_answered, &asks[i]);
    if (--g->pending == 0)
        gather_finish(g);
}

static const char *metric_field(const void *object, const char *const *path, size_t n)
{
    const struct task *task = object;

    if (n == 1 && str_eq(path[0], "id"))
        return task->id;
    return n == 1 && str_eq(path[0], "namespace") ? task->ns : NULL;
}

static size_t keep_matching(struct task **tasks, size_t n, const struct filter *filter)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (filter_matches(filter, metric_field, tasks[i]))
            tasks[kept++] = tasks[i];
        else
            task_unref(tasks[i]);
    }
    return kept;
}

static void gather_handle(struct grpc_call *call, char *const *filters, size_t n_filters,
                          bool metrics)
{
    struct service_context *ctx = grpc_call_userdata(call);
    _cleanup_(filter_freep) struct filter *filter = NULL;
    struct task **tasks = NULL;
    struct err e = ERR_INIT;
    const char *ns = NULL;
    size_t n = 0;

    int r = service_namespace(call, &ns, &e);
    if (r >= 0)
        r = filter_parse((const char *const *)filters, n_filters, &filter, &e);
    if (r >= 0 && tasks_list(ctx->tasks, ns, &tasks, &n) < 0)
        r = err_oom(&e);
    if (r < 0) {
        grpc_call_finish(call, &e);
        return;
    }
    n = keep_matching(tasks, n, filter);
    gather_start(call, tasks, n, metrics);
}

void tasks_list_handle(struct grpc_call *call, const ProtobufCMessage *request)
{
    gather_handle(call, NULL, 0, false);
}

void tasks_metrics_handle(struct grpc_call *call, const ProtobufCMessage *request)
{
    const Pb__Tasks__MetricsRequest *r = (const Pb__Tasks__MetricsRequest *)request;

    gather_handle(call, r->filters, r->n_filters, true);
}

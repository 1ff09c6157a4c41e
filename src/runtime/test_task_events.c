/* SPDX-License-Identifier: Apache-2.0 */
/* What the gate does with the exits of tasks of runtime v1, without any shim. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "events.pb-c.h"
#include "runtime/tasks_private.h"
#include "wire/pb.h"

struct fixture {
    struct event_loop loop;
    struct workq *pool;
    struct exchange *exchange;
    struct tasks *tasks;
    struct task *task;
    struct subscription *subscription;
    char heard[512]; /* "exit:<process>:<pid> ..." in order */
};

static void hear(void *userdata, const Pb__Types__Envelope *envelope)
{
    struct fixture *f = userdata;
    ProtobufCMessage *message = NULL;
    struct err e = ERR_INIT;
    size_t len = strlen(f->heard);

    assert_int_equal(pb_unpack(&pb__event__task_exit__descriptor, envelope->event->value.data,
                               envelope->event->value.len, &message, &e),
                     0);
    const Pb__Event__TaskExit *exit = (const Pb__Event__TaskExit *)message;
    snprintf(f->heard + len, sizeof(f->heard) - len, "%s%s:%u", len ? " " : "", exit->id,
             exit->pid);
    pb_free(message);
}

static int setup(void **state)
{
    static const char *const filters[] = {"topic==\"/tasks/exit\""};
    struct fixture *f = calloc(1, sizeof(*f));
    struct tasks_options options = {.oci_runtime = "runc"};
    struct filter *filter = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(event_loop_init(&f->loop), 0);
    assert_int_equal(event_loop_enable_posts(&f->loop), 0);
    assert_int_equal(workq_new(1, &f->pool), 0);
    assert_int_equal(exchange_new(&f->exchange), 0);
    assert_int_equal(tasks_new(&f->loop, f->pool, f->exchange, &options, &f->tasks, &e), 0);
    f->task = task_new(f->tasks, "ns", "c1");
    f->task->is_linux = true;
    f->task->state = TASK_LIVE;
    assert_int_equal(tasks_add(f->tasks, f->task, &e), 0);
    assert_int_equal(filter_parse(filters, 1, &filter, &e), 0);
    assert_int_equal(exchange_subscribe(f->exchange, filter, hear, f, &f->subscription), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    exchange_unsubscribe(f->subscription);
    task_unref(f->task);
    f->pool = workq_free(f->pool);
    tasks_free(f->tasks);
    exchange_free(f->exchange);
    event_loop_done(&f->loop);
    free(f);
    return 0;
}

/* As `wherryd publish` brings it. */
static void publish_exit(struct fixture *f, const char *process, uint32_t pid)
{
    Pb__Event__TaskExit event = PB__EVENT__TASK_EXIT__INIT;
    _cleanup_(any_done) struct any any = {0};
    struct err e = ERR_INIT;

    event.container_id = (char *)"c1";
    event.id = (char *)process;
    event.pid = pid;
    assert_int_equal(any_pack(&any, &event.base), 0);
    assert_int_equal(exchange_publish_any(f->exchange, "ns", "/tasks/exit", &any, &e), 0);
}

/* A shim that answers nothing: every call fails at once. */
static struct shim *dead_shim(struct fixture *f)
{
    struct shim *s = calloc(1, sizeof(*s));

    atomic_init(&s->refs, 1);
    s->loop = &f->loop;
    s->is_v1 = true;
    s->proc = (struct proc)PROC_NULL;
    atomic_init(&s->dead, true);
    return s;
}

static void failed(void *userdata, const struct err *e, ProtobufCMessage *reply)
{
    assert_non_null(e);
    *(bool *)userdata = true;
}

static void exits_pass(void **state)
{
    struct fixture *f = *state;

    publish_exit(f, "e1", 2);
    publish_exit(f, "c1", 1);
    assert_string_equal(f->heard, "e1:2 c1:1");
    assert_true(atomic_load(&f->task->exit_seen));
    assert_false(task_events_claim_exit(f->task, 1));
}

static void exits_wait_for_the_start(void **state)
{
    struct fixture *f = *state;
    Pb__Task__StartRequest request = PB__TASK__START_REQUEST__INIT;
    struct shim *shim = dead_shim(f);
    bool answered = false;

    /* Two starts are under way. */
    f->task->starting = 1;
    publish_exit(f, "e1", 2);
    publish_exit(f, "c1", 1);
    assert_string_equal(f->heard, "");
    /* One that ends while the other goes on lets nothing go; the last one does, in order. */
    f->task->starting = 2;
    task_events_call(f->task, shim, "Start", &request.base, &pb__task__start_response__descriptor,
                     0, failed, &answered);
    assert_true(answered);
    assert_string_equal(f->heard, "");
    f->task->starting = 0;
    task_events_call(f->task, shim, "Start", &request.base, &pb__task__start_response__descriptor,
                     0, failed, &answered);
    assert_string_equal(f->heard, "e1:2 c1:1");
    assert_int_equal(f->task->starting, 0);
    assert_int_equal(f->task->n_held, 0);
    publish_exit(f, "e2", 3);
    assert_string_equal(f->heard, "e1:2 c1:1 e2:3");
    shim_unref(shim);
    event_loop_turn(&f->loop, 0);
}

static void an_exit_that_we_reported_is_dropped(void **state)
{
    struct fixture *f = *state;

    assert_true(task_events_claim_exit(f->task, 1));
    assert_false(task_events_claim_exit(f->task, 1));
    tasks_remove(f->tasks, f->task);
    publish_exit(f, "c1", 1);
    assert_string_equal(f->heard, "");
    /* That of another process is news. */
    publish_exit(f, "c1", 4);
    assert_string_equal(f->heard, "c1:4");
}

static void what_is_held_is_bounded(void **state)
{
    struct fixture *f = *state;
    Pb__Task__StartRequest request = PB__TASK__START_REQUEST__INIT;
    struct shim *shim = dead_shim(f);
    bool answered = false;

    f->task->starting = 1;
    for (uint32_t i = 0; i < TASK_EVENTS_HELD_MAX + 1; i++)
        publish_exit(f, "e", i);
    assert_int_equal(f->task->n_held, TASK_EVENTS_HELD_MAX);
    assert_string_equal(f->heard, "e:256");
    f->task->starting = 0;
    task_events_call(f->task, shim, "Start", &request.base, &pb__task__start_response__descriptor,
                     0, failed, &answered);
    assert_int_equal(f->task->n_held, 0);
    shim_unref(shim);
    event_loop_turn(&f->loop, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(exits_pass, setup, teardown),
        cmocka_unit_test_setup_teardown(exits_wait_for_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(an_exit_that_we_reported_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_held_is_bounded, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

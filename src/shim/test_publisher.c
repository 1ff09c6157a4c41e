/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/str.h"
#include "events.pb-c.h"
#include "services.events.ttrpc.v1.pb-c.h"
#include "shim/publisher.h"
#include "shim/topics.h"

/* A daemon that is away, or notes what it gets. */
struct daemon {
    struct publisher *publisher;
    bool is_away;
    enum err_code refusal; /* ERR_OK: takes it */
    size_t n_sent;
    uint32_t pids[8];
    size_t n_pids;
    struct event_timer answer;
    struct event_loop loop;
    bool was_idle;
};

static void on_answer(struct event_timer *timer)
{
    struct daemon *d = container_of(timer, struct daemon, answer);
    struct err e = ERR_INIT;

    if (d->refusal == ERR_OK) {
        publisher_sent(d->publisher, NULL);
        return;
    }
    err_set(&e, d->refusal, "refused");
    publisher_sent(d->publisher, &e);
}

static int take(void *userdata, struct publisher *p, const char *topic, const void *request,
                size_t n, struct err *e)
{
    struct daemon *d = userdata;

    if (d->is_away)
        return err_set(e, ERR_UNAVAILABLE, "away");
    Pb__Eventsttrpc__ForwardRequest *r = pb__eventsttrpc__forward_request__unpack(NULL, n, request);
    assert_non_null(r);
    assert_string_equal(r->envelope->namespace_, "ns");
    assert_string_equal(r->envelope->topic, topic);
    assert_string_equal(r->envelope->event->type_url, "containerd.events.TaskExit");
    Pb__Event__TaskExit *event = pb__event__task_exit__unpack(NULL, r->envelope->event->value.len,
                                                              r->envelope->event->value.data);
    if (d->n_pids < ARRAY_SIZE(d->pids))
        d->pids[d->n_pids++] = event->pid;
    d->n_sent++;
    pb__event__task_exit__free_unpacked(event, NULL);
    pb__eventsttrpc__forward_request__free_unpacked(r, NULL);
    event_timer_arm(&d->loop, &d->answer, 0, on_answer);
    return 0;
}

static void idle(void *userdata)
{
    struct daemon *d = userdata;
    d->was_idle = true;
}

static const struct publisher_transport transport = {.send = take, .idle = idle};

static void publish(struct daemon *d, const char *topic, uint32_t pid)
{
    Pb__Event__TaskExit event = PB__EVENT__TASK_EXIT__INIT;

    event.pid = pid;
    publisher_publish(d->publisher, topic, &event.base);
}

static void turn_until_empty(struct daemon *d)
{
    for (int i = 0; i < 10000 && !publisher_is_empty(d->publisher); i++)
        event_loop_turn(&d->loop, 20);
    assert_true(publisher_is_empty(d->publisher));
}

static int set_up(void **state)
{
    struct daemon *d = calloc(1, sizeof(*d));

    event_loop_init(&d->loop);
    *state = d;
    return publisher_new(&d->loop, "ns", &transport, d, &d->publisher);
}

static int tear_down(void **state)
{
    struct daemon *d = *state;

    publisher_free(d->publisher);
    event_timer_disarm(&d->answer);
    event_loop_done(&d->loop);
    free(d);
    return 0;
}

static void test_order_and_retry(void **state)
{
    struct daemon *d = *state;

    d->is_away = true;
    publish(d, TOPIC_START, 1);
    publish(d, TOPIC_EXIT, 2);
    publish(d, TOPIC_EXIT, 3);
    event_loop_turn(&d->loop, 0);
    assert_int_equal(d->n_sent, 0);
    d->is_away = false;
    turn_until_empty(d);
    assert_int_equal(d->n_sent, 3);
    assert_int_equal(d->pids[0], 1);
    assert_int_equal(d->pids[1], 2);
    assert_int_equal(d->pids[2], 3);
    for (int i = 0; i < 100 && !d->was_idle; i++)
        event_loop_turn(&d->loop, 20);
    assert_true(d->was_idle);
}

static void test_refusals(void **state)
{
    struct daemon *d = *state;

    d->refusal = ERR_INVALID_ARGUMENT; /* final: goes on with the next */
    publish(d, TOPIC_EXIT, 1);
    publish(d, TOPIC_EXIT, 2);
    turn_until_empty(d);
    assert_int_equal(d->n_sent, 2);
    d->refusal = ERR_UNAVAILABLE; /* again */
    publish(d, TOPIC_EXIT, 3);
    event_loop_turn(&d->loop, 20);
    assert_false(publisher_is_empty(d->publisher));
    d->refusal = ERR_OK;
    turn_until_empty(d);
    assert_int_equal(d->n_sent, 4);
    assert_int_equal(d->pids[3], 3);
}

static void test_bound(void **state)
{
    struct daemon *d = *state;

    d->is_away = true;
    publish(d, TOPIC_EXIT, 7);
    for (uint32_t i = 0; i < 2 * PUBLISHER_QUEUE_MAX; i++)
        publish(d, TOPIC_OOM, 100 + i);
    d->is_away = false;
    turn_until_empty(d);
    assert_int_equal(d->n_sent, PUBLISHER_QUEUE_MAX);
    assert_int_equal(d->pids[0], 7); /* the exit stayed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order_and_retry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refusals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bound, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "events.pb-c.h"
#include "runtime/exchange.h"
#include "services.images.v1.pb-c.h"

struct heard {
    struct subscription *subscription;
    size_t n;
    char last[256]; /* namespace, topic, type of the last one */
};

static void hear(void *userdata, const Pb__Types__Envelope *envelope)
{
    struct heard *h = userdata;

    h->n++;
    snprintf(h->last, sizeof(h->last), "%s %s %s", envelope->namespace_, envelope->topic,
             envelope->event ? envelope->event->type_url : "-");
}

static void subscribe(struct exchange *x, const char *filter, struct heard *h)
{
    struct filter *f = NULL;
    struct err e = ERR_INIT;

    *h = (struct heard){};
    if (filter_parse(&filter, filter ? 1 : 0, &f, &e) < 0)
        fail_msg("%s: %s", filter, e.msg);
    assert_int_equal(exchange_subscribe(x, f, hear, h, &h->subscription), 0);
}

/* What a subscriber with the filter hears of one event. */
static bool passes(const char *filter, const char *ns, const char *topic,
                   const ProtobufCMessage *event)
{
    struct exchange *x = NULL;
    struct err e = ERR_INIT;
    struct heard h;

    assert_int_equal(exchange_new(&x), 0);
    subscribe(x, filter, &h);
    if (exchange_publish(x, ns, topic, event, &e) < 0)
        fail_msg("%s", e.msg);
    exchange_unsubscribe(h.subscription);
    exchange_free(x);
    return h.n;
}

static void fields_of_events(void **state)
{
    Pb__Event__TaskExit task_exit = PB__EVENT__TASK_EXIT__INIT;
    Pb__Event__TaskCreate create = PB__EVENT__TASK_CREATE__INIT;
    Pb__Event__TaskIO io = PB__EVENT__TASK_IO__INIT;
    Pb__Images__ImageCreate image = PB__IMAGES__IMAGE_CREATE__INIT;
    Pb__Images__ImageCreate__LabelsEntry label = PB__IMAGES__IMAGE_CREATE__LABELS_ENTRY__INIT;
    Pb__Images__ImageCreate__LabelsEntry *labels[] = {&label};

    task_exit.container_id = (char *)"c";
    task_exit.pid = 7;
    io.stdin = (char *)"/in";
    create.io = &io;
    create.container_id = (char *)"c";
    label.key = (char *)"a.b/c";
    label.value = (char *)"v";
    image.name = (char *)"i";
    image.labels = labels;
    image.n_labels = 1;

#define EXIT(filter) passes(filter, "ns", "/tasks/exit", &task_exit.base)
    assert_true(EXIT(NULL));
    assert_true(EXIT("namespace==ns"));
    assert_true(EXIT("topic==\"/tasks/exit\""));
    assert_true(EXIT("namespace==ns,topic~=|^/tasks/|"));
    assert_false(EXIT("namespace==other"));
    assert_true(EXIT("event.container_id==c"));
    assert_false(EXIT("event.id"));
    assert_false(EXIT("event.pid"));
    assert_false(EXIT("event.exited_at"));
    assert_false(EXIT("event"));
    assert_false(EXIT("event.container_id.more"));
    assert_true(passes("event.io.stdin==\"/in\"", "ns", "/t", &create.base));
    assert_false(passes("event.io", "ns", "/t", &create.base));
    assert_false(passes("event.rootfs", "ns", "/t", &create.base));
    assert_true(passes("event.labels.\"a.b/c\"==v", "ns", "/t", &image.base));
    assert_false(passes("event.labels", "ns", "/t", &image.base));
    assert_true(passes("event.name==i", "ns", "/t", &image.base));
}

/* An Any inside of an event is looked into; broken bytes and unknown types have no fields. */
static void nested_and_broken(void **state)
{
    Pb__Event__ContainerCreate create = PB__EVENT__CONTAINER_CREATE__INIT;
    Pb__Event__ContainerCreate__Runtime runtime = PB__EVENT__CONTAINER_CREATE__RUNTIME__INIT;
    Google__Protobuf__Any options = GOOGLE__PROTOBUF__ANY__INIT;
    uint8_t bytes[] = {0x32, 4, 'r', 'u', 'n', 'c'}; /* field 6, binary_name */

    options.type_url = (char *)"containerd.runc.v1.Options";
    options.value.data = bytes;
    options.value.len = sizeof(bytes);
    runtime.name = (char *)"io.containerd.runc.v2";
    runtime.options = &options;
    create.runtime = &runtime;
    assert_true(passes("event.runtime.options.binary_name==runc", "ns", "/t", &create.base));
    assert_true(passes("event.runtime.name==io.containerd.runc.v2", "ns", "/t", &create.base));
    options.value.len = 3;
    assert_false(passes("event.runtime.options.binary_name", "ns", "/t", &create.base));
    options.type_url = (char *)"unknown.Type";
    assert_false(passes("event.runtime.options.binary_name", "ns", "/t", &create.base));
}

static void publish_fails(struct exchange *x, const char *ns, const char *topic,
                          const char *sentence)
{
    struct any event = {.type_url = (char *)"x"};
    struct err e = ERR_INIT;

    assert_true(exchange_publish_any(x, ns, topic, &event, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_string_equal(e.msg, sentence);
}

static void validation(void **state)
{
    struct exchange *x = NULL;
    struct heard h;
    struct err e = ERR_INIT;
    Pb__Types__Envelope envelope = PB__TYPES__ENVELOPE__INIT;
    Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

    assert_int_equal(exchange_new(&x), 0);
    subscribe(x, NULL, &h);
    publish_fails(x, "ns", "", "envelope topic \"\": must not be empty: invalid argument");
    publish_fails(x, "ns", "a", "envelope topic \"a\": must start with '/': invalid argument");
    publish_fails(x, "ns", "/",
                  "envelope topic \"/\": must have at least one component: invalid argument");
    publish_fails(
        x, "ns", "/a/",
        "envelope topic \"/a/\": failed validation on component \"\": identifier must not be "
        "empty: invalid argument");
    envelope.namespace_ = (char *)"ns";
    envelope.topic = (char *)"/t/x";
    assert_true(exchange_forward(x, &envelope, &e) < 0);
    assert_string_equal(e.msg, "timestamp must be set on forwarded event: invalid argument");
    time.seconds = 5;
    envelope.timestamp = &time;
    assert_int_equal(exchange_forward(x, &envelope, &e), 0);
    assert_int_equal(h.n, 1);
    assert_string_equal(h.last, "ns /t/x -");
    envelope.namespace_ = (char *)"";
    assert_true(exchange_forward(x, &envelope, &e) < 0);
    assert_true(exchange_forward(x, NULL, &e) < 0);
    exchange_unsubscribe(h.subscription);
    exchange_free(x);
}

static void end_task(struct exchange *x, const char *id, const char *process)
{
    Pb__Event__TaskExit event = PB__EVENT__TASK_EXIT__INIT;
    struct err e = ERR_INIT;

    event.container_id = (char *)id;
    event.id = (char *)process;
    assert_int_equal(exchange_publish(x, "ns", "/tasks/exit", &event.base, &e), 0);
}

static size_t heard_by_a_late_one(struct exchange *x, const char *filter)
{
    struct heard h;

    subscribe(x, filter, &h);
    exchange_unsubscribe(h.subscription);
    return h.n;
}

/* What was found at the start is told to those who come later, until it is made anew. */
static void late_subscribers(void **state)
{
    Pb__Event__TaskCreate create = PB__EVENT__TASK_CREATE__INIT;
    Pb__Event__TaskOOM oom = PB__EVENT__TASK_OOM__INIT;
    Pb__Event__TaskPaused paused = PB__EVENT__TASK_PAUSED__INIT;
    struct exchange *x = NULL;
    struct err e = ERR_INIT;
    struct heard h;

    assert_int_equal(exchange_new(&x), 0);
    end_task(x, "found", "found");
    assert_int_equal(heard_by_a_late_one(x, NULL), 0);
    assert_int_equal(exchange_await_end(x, "ns", "found"), 0);
    assert_int_equal(exchange_await_end(x, "ns", "other"), 0);
    subscribe(x, NULL, &h);
    oom.container_id = paused.container_id = (char *)"found";
    assert_int_equal(exchange_publish(x, "ns", "/tasks/oom", &oom.base, &e), 0);
    assert_int_equal(exchange_publish(x, "ns", "/tasks/paused", &paused.base, &e), 0);
    end_task(x, "found", "exec");
    end_task(x, "found", "found");
    end_task(x, "new", "new");
    end_task(x, "other", "other");
    exchange_unsubscribe(h.subscription);
    assert_int_equal(h.n, 6); /* each once */

    assert_int_equal(heard_by_a_late_one(x, NULL), 4);
    assert_int_equal(heard_by_a_late_one(x, "topic==\"/tasks/exit\",namespace==ns"), 3);
    assert_int_equal(heard_by_a_late_one(x, "namespace==elsewhere"), 0);
    subscribe(x, NULL, &h);
    assert_string_equal(h.last, "ns /tasks/exit containerd.events.TaskExit");
    exchange_unsubscribe(h.subscription);

    create.container_id = (char *)"found";
    assert_int_equal(exchange_publish(x, "ns", "/tasks/create", &create.base, &e), 0);
    end_task(x, "found", "found");
    assert_int_equal(heard_by_a_late_one(x, NULL), 1);
    exchange_free(x);
}

static void *publish_many(void *arg)
{
    Pb__Event__TaskPaused event = PB__EVENT__TASK_PAUSED__INIT;
    struct err e = ERR_INIT;

    for (int i = 0; i < 2000; i++)
        if (exchange_publish(arg, "ns", "/tasks/paused", &event.base, &e) < 0)
            return arg;
    return NULL;
}

/* Publishers and subscribers that come and go at once. */
static void many_threads(void **state)
{
    struct exchange *x = NULL;
    pthread_t threads[4];
    struct heard stays;
    void *failed;

    assert_int_equal(exchange_new(&x), 0);
    subscribe(x, NULL, &stays);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, publish_many, x), 0);
    for (int i = 0; i < 500; i++) {
        struct heard h;
        subscribe(x, "event.container_id==x", &h);
        exchange_unsubscribe(h.subscription);
        assert_int_equal(h.n, 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    exchange_unsubscribe(stays.subscription);
    assert_int_equal(stays.n, 4 * 2000);
    exchange_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_of_events), cmocka_unit_test(nested_and_broken),
        cmocka_unit_test(validation),       cmocka_unit_test(late_subscribers),
        cmocka_unit_test(many_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

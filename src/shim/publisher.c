/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/publisher.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/str.h"
#include "services.events.ttrpc.v1.pb-c.h"
#include "shim/topics.h"
#include "wire/pb.h"

/* Between attempts; a daemon's restart takes about a second. */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000
#define IDLE_MS 1000

struct event {
    struct list link;
    const char *topic;
    size_t n;
    uint8_t request[]; /* a packed ForwardRequest */
};

struct publisher {
    struct event_loop *loop;
    const char *namespace_; /* borrowed */
    const struct publisher_transport *transport;
    void *userdata;
    struct list queue; /* the first one is under way while is_sending */
    size_t n, bytes;
    bool is_sending;
    uint64_t retry_ms;
    uint64_t n_dropped;
    struct event_timer timer; /* a pause before the next attempt, or until the connection is idle */
    void (*empty_fn)(void *userdata);
    void *empty_userdata;
};

static void send_next(struct publisher *p);

int publisher_new(struct event_loop *loop, const char *namespace_,
                  const struct publisher_transport *transport, void *userdata,
                  struct publisher **ret)
{
    struct publisher *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->loop = loop;
    p->namespace_ = namespace_;
    p->transport = transport;
    p->userdata = userdata;
    p->retry_ms = RETRY_MIN_MS;
    list_init(&p->queue);
    *ret = p;
    return 0;
}

static void drop(struct publisher *p, struct event *event)
{
    list_remove(&event->link);
    p->n--;
    p->bytes -= event->n;
    free(event);
}

struct publisher *publisher_free(struct publisher *p)
{
    if (!p)
        return NULL;
    event_timer_disarm(&p->timer);
    while (!list_is_empty(&p->queue))
        drop(p, container_of(p->queue.next, struct event, link));
    free(p);
    return NULL;
}

bool publisher_is_empty(const struct publisher *p)
{
    return list_is_empty(&p->queue);
}

void publisher_on_empty(struct publisher *p, void (*fn)(void *userdata), void *userdata)
{
    p->empty_fn = fn;
    p->empty_userdata = userdata;
}

/* Makes room: the event under way stays. */
static void drop_one(struct publisher *p)
{
    struct event *event, *oldest = NULL;

    LIST_FOREACH (event, &p->queue, link) {
        if (p->is_sending && p->queue.next == &event->link)
            continue;
        if (!oldest)
            oldest = event;
        if (!str_eq(event->topic, TOPIC_EXIT)) {
            oldest = event;
            break;
        }
    }
    if (!oldest)
        return;
    if (p->n_dropped++ % 1000 == 0)
        log_warn("the daemon takes no events and %zu are waiting: dropping the oldest", p->n);
    drop(p, oldest);
}

static struct event *make_event(const struct publisher *p, const char *topic,
                                const ProtobufCMessage *message)
{
    Pb__Types__Envelope envelope = PB__TYPES__ENVELOPE__INIT;
    Pb__Eventsttrpc__ForwardRequest request = PB__EVENTSTTRPC__FORWARD_REQUEST__INIT;
    Google__Protobuf__Any *any = pb_any_pack(message);
    Google__Protobuf__Timestamp *now = pb_timestamp_new(clock_realtime());
    struct event *event = NULL;

    if (any && now) {
        envelope.timestamp = now;
        envelope.namespace_ = (char *)p->namespace_;
        envelope.topic = (char *)topic;
        envelope.event = any;
        request.envelope = &envelope;
        size_t n = pb__eventsttrpc__forward_request__get_packed_size(&request);
        event = malloc(sizeof(*event) + n);
        if (event) {
            event->topic = topic;
            event->n = n;
            pb__eventsttrpc__forward_request__pack(&request, event->request);
        }
    }
    if (any)
        pb_free(&any->base);
    if (now)
        pb_free(&now->base);
    return event;
}

void publisher_publish(struct publisher *p, const char *topic, const ProtobufCMessage *message)
{
    struct event *event = make_event(p, topic, message);

    if (!event) {
        log_error("event %s is lost: out of memory", topic);
        return;
    }
    while (p->n > 0 &&
           (p->n >= PUBLISHER_QUEUE_MAX || p->bytes + event->n > PUBLISHER_QUEUE_BYTES_MAX)) {
        size_t before = p->n;
        drop_one(p);
        if (p->n == before)
            break;
    }
    bool was_empty = list_is_empty(&p->queue);
    list_push_back(&p->queue, &event->link);
    p->n++;
    p->bytes += event->n;
    if (was_empty) {
        event_timer_disarm(&p->timer); /* the one for idleness */
        send_next(p);
    }
}

static void on_retry(struct event_timer *timer)
{
    send_next(container_of(timer, struct publisher, timer));
}

static void on_idle(struct event_timer *timer)
{
    struct publisher *p = container_of(timer, struct publisher, timer);

    p->transport->idle(p->userdata);
}

static void retry_later(struct publisher *p)
{
    event_timer_arm(p->loop, &p->timer, p->retry_ms, on_retry);
    p->retry_ms = MIN_OF(p->retry_ms * 2, (uint64_t)RETRY_MAX_MS);
}

static void send_next(struct publisher *p)
{
    struct err e = ERR_INIT;

    if (list_is_empty(&p->queue)) {
        event_timer_arm(p->loop, &p->timer, IDLE_MS, on_idle);
        if (p->empty_fn)
            p->empty_fn(p->empty_userdata);
        return;
    }
    const struct event *event = container_of(p->queue.next, struct event, link);
    p->is_sending = true;
    if (p->transport->send(p->userdata, p, event->topic, event->request, event->n, &e) < 0) {
        p->is_sending = false;
        log_debug("event %s waits: %s", event->topic, e.msg);
        retry_later(p);
    }
}

/* Whether repeating could help: not when the daemon has judged the event itself. */
static bool is_final(const struct err *e)
{
    switch (e->code) {
    case ERR_INVALID_ARGUMENT:
    case ERR_UNIMPLEMENTED:
    case ERR_PERMISSION_DENIED:
    case ERR_OUT_OF_RANGE:
        return true;
    default:
        return false;
    }
}

void publisher_sent(struct publisher *p, const struct err *e)
{
    struct event *event = container_of(p->queue.next, struct event, link);

    p->is_sending = false;
    if (e && !is_final(e)) {
        log_debug("event %s waits: %s", event->topic, e->msg);
        retry_later(p);
        return;
    }
    if (e)
        log_error("the daemon refuses event %s: %s", event->topic, e->msg);
    p->retry_ms = RETRY_MIN_MS;
    drop(p, event);
    send_next(p);
}

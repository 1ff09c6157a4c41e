/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One list, one lock. It is held while an envelope goes to everybody, which is what makes the order
 * the same for all subscribers and lets unsubscribing promise that nothing comes afterwards.
 */
#include "runtime/exchange.h"

#include <pthread.h>

#include "base/identifier.h"
#include "base/list.h"
#include "base/str.h"
#include "runtime/event_fields.h"
#include "runtime/late_ends.h"
#include "wire/pb.h"

struct exchange {
    pthread_mutex_t lock;
    struct list subscriptions;
    struct late_ends late;
    exchange_gate_fn gate;
    void *gate_userdata;
};

struct subscription {
    struct exchange *exchange;
    struct list link;
    struct filter *filter;
    exchange_event_fn fn;
    void *userdata;
};

int exchange_new(struct exchange **ret)
{
    struct exchange *x = calloc(1, sizeof(*x));

    if (!x)
        return -ENOMEM;
    pthread_mutex_init(&x->lock, NULL);
    list_init(&x->subscriptions);
    late_ends_init(&x->late);
    *ret = x;
    return 0;
}

struct exchange *exchange_free(struct exchange *x)
{
    if (!x)
        return NULL;
    late_ends_done(&x->late);
    pthread_mutex_destroy(&x->lock);
    free(x);
    return NULL;
}

static int check_components(const char *topic, struct err *e)
{
    const char *at = topic + 1;

    for (;;) {
        size_t n = strcspn(at, "/");
        /* A longer one is wrong anyway; its beginning says so. */
        char component[IDENTIFIER_MAX + 2];
        size_t kept = MIN_OF(n, sizeof(component) - 1);

        memcpy(component, at, kept);
        component[kept] = '\0';
        if (identifier_validate(component, e) < 0)
            return err_wrap(e, "failed validation on component \"%s\"", component);
        if (!at[n])
            return 0;
        at += n + 1;
    }
}

static int check_topic(const char *topic, struct err *e)
{
    int r;

    if (!*topic)
        r = err_set(e, ERR_INVALID_ARGUMENT, "must not be empty: invalid argument");
    else if (*topic != '/')
        r = err_set(e, ERR_INVALID_ARGUMENT, "must start with '/': invalid argument");
    else if (!topic[1])
        r = err_set(e, ERR_INVALID_ARGUMENT, "must have at least one component: invalid argument");
    else
        r = check_components(topic, e);
    /* Not more of it than leaves room for what is wrong. */
    return r < 0 ? err_wrap(e, "envelope topic \"%.256s\"", topic) : 0;
}

static void deliver(struct exchange *x, const Pb__Types__Envelope *envelope)
{
    struct event_fields fields;
    struct subscription *s;

    event_fields_init(&fields, envelope);
    pthread_mutex_lock(&x->lock);
    LIST_FOREACH (s, &x->subscriptions, link) {
        if (filter_matches(s->filter, event_fields_get, &fields))
            s->fn(s->userdata, envelope);
    }
    late_ends_note(&x->late, envelope);
    pthread_mutex_unlock(&x->lock);
    event_fields_done(&fields);
}

static int publish_any(struct exchange *x, const char *ns, const char *topic,
                       const struct any *event, exchange_gate_fn gate, struct err *e)
{
    struct timespec now = clock_realtime();
    Google__Protobuf__Timestamp timestamp = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    Pb__Types__Envelope envelope = PB__TYPES__ENVELOPE__INIT;

    if (identifier_validate(ns, e) < 0)
        return err_wrap(e, "failed publishing event");
    if (check_topic(topic, e) < 0)
        return ERR_RETURN;
    timestamp.seconds = now.tv_sec;
    timestamp.nanos = (int32_t)now.tv_nsec;
    any.type_url = (char *)str_or_empty(event->type_url);
    any.value.data = event->value;
    any.value.len = event->value_len;
    envelope.timestamp = &timestamp;
    envelope.namespace_ = (char *)ns;
    envelope.topic = (char *)topic;
    envelope.event = any_is_empty(event) ? NULL : &any;
    if (!gate || !gate(x->gate_userdata, &envelope))
        deliver(x, &envelope);
    return 0;
}

int exchange_publish_any(struct exchange *x, const char *ns, const char *topic,
                         const struct any *event, struct err *e)
{
    return publish_any(x, ns, topic, event, x->gate, e);
}

int exchange_publish(struct exchange *x, const char *ns, const char *topic,
                     const ProtobufCMessage *event, struct err *e)
{
    _cleanup_(any_done) struct any any = {};

    if (any_pack(&any, event) < 0)
        return err_oom(e);
    return publish_any(x, ns, topic, &any, NULL, e);
}

void exchange_set_gate(struct exchange *x, exchange_gate_fn fn, void *userdata)
{
    x->gate = fn;
    x->gate_userdata = userdata;
}

int exchange_forward(struct exchange *x, const Pb__Types__Envelope *envelope, struct err *e)
{
    struct timespec t;

    if (!envelope)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "event envelope must be set on forwarded event: invalid argument");
    if (identifier_validate(envelope->namespace_, e) < 0)
        return err_wrap(e, "event envelope has invalid namespace");
    if (check_topic(envelope->topic, e) < 0)
        return ERR_RETURN;
    t = pb_timestamp_get(envelope->timestamp);
    if (t.tv_sec == 0 && t.tv_nsec == 0)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "timestamp must be set on forwarded event: invalid argument");
    deliver(x, envelope);
    return 0;
}

int exchange_await_end(struct exchange *x, const char *ns, const char *id)
{
    pthread_mutex_lock(&x->lock);
    int r = late_ends_await(&x->late, ns, id);
    pthread_mutex_unlock(&x->lock);
    return r;
}

/* Under the lock. */
static void tell_late_ends(struct exchange *x, struct subscription *s)
{
    const struct list *kept = late_ends_kept(&x->late);
    const struct late_end *end;

    LIST_FOREACH (end, kept, link) {
        struct event_fields fields;
        event_fields_init(&fields, end->envelope);
        if (filter_matches(s->filter, event_fields_get, &fields))
            s->fn(s->userdata, end->envelope);
        event_fields_done(&fields);
    }
}

int exchange_subscribe(struct exchange *x, struct filter *filter, exchange_event_fn fn,
                       void *userdata, struct subscription **ret)
{
    struct subscription *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    *s = (struct subscription){.exchange = x, .filter = filter, .fn = fn, .userdata = userdata};
    pthread_mutex_lock(&x->lock);
    list_push_back(&x->subscriptions, &s->link);
    tell_late_ends(x, s);
    pthread_mutex_unlock(&x->lock);
    *ret = s;
    return 0;
}

struct subscription *exchange_unsubscribe(struct subscription *s)
{
    if (!s)
        return NULL;
    pthread_mutex_lock(&s->exchange->lock);
    list_remove(&s->link);
    pthread_mutex_unlock(&s->exchange->lock);
    filter_free(s->filter);
    free(s);
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event exchange: publishers hand in envelopes, subscribers get those that their filters match.
 * Thread-safe. Order is the order of publishing. A subscriber gets what is published from then on;
 * only the ends of tasks that a daemon found at its start are told to those who come later, too
 * (late_ends.h).
 *
 * A subscriber is called on the publishing thread and must not block or call back; it queues what
 * it wants to keep (the gRPC call has a bounded queue of its own).
 */
#pragma once

#include "base/any.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/filter.h"
#include "types.pb-c.h"

struct exchange;
struct subscription;

int exchange_new(struct exchange **ret);
struct exchange *exchange_free(struct exchange *x);

/* Checks the topic (starts with '/', components are identifiers), stamps the time, delivers.
 * `event` is packed under its message name. */
int exchange_publish(struct exchange *x, const char *ns, const char *topic,
                     const ProtobufCMessage *event, struct err *e);
int exchange_publish_any(struct exchange *x, const char *ns, const char *topic,
                         const struct any *event, struct err *e);
/* Asked about every event that comes by exchange_publish_any(), before anybody gets it and under no
 * lock: true takes it away, to be handed to exchange_forward() later or not at all. One for the
 * life of the exchange; set before anything is published. */
typedef bool (*exchange_gate_fn)(void *userdata, const Pb__Types__Envelope *envelope);
void exchange_set_gate(struct exchange *x, exchange_gate_fn fn, void *userdata);

/* An envelope of somebody else: validated (namespace, topic, "timestamp must be set on forwarded
 * event: invalid argument"), delivered as it is. */
int exchange_forward(struct exchange *x, const Pb__Types__Envelope *envelope, struct err *e);

/* To be called for every task that is found at the start, before anything about it is published. 0
 * or -ENOMEM. */
int exchange_await_end(struct exchange *x, const char *ns, const char *id);

/* The filter is owned by the subscription from success on. */
typedef void (*exchange_event_fn)(void *userdata, const Pb__Types__Envelope *envelope);
/* fn may be called before this returns. */
int exchange_subscribe(struct exchange *x, struct filter *filter, exchange_event_fn fn,
                       void *userdata, struct subscription **ret);
/* After it returns fn is not running and will not be called. Takes NULL. Returns NULL. */
struct subscription *exchange_unsubscribe(struct subscription *s);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events on their way to the daemon, by Forward of containerd.services.events.ttrpc.v1.Events on
 * its ttrpc socket: one at a time, in order, each repeated until the daemon has it. The connection
 * is made when there is something to say and closed when there has been nothing for a while, so an
 * idle shim holds none.
 *
 * While the daemon is away events wait, in a queue with a bound. When that is full the oldest event
 * that is no exit is dropped, and only when there is none, the oldest exit (which stays in the
 * bundle's exit record). An event the daemon refuses as invalid is dropped with a line in the log.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/err.h"
#include "base/event.h"

#define PUBLISHER_QUEUE_MAX 4096
#define PUBLISHER_QUEUE_BYTES_MAX (2u << 20)

struct publisher;

/* How one event leaves: begins to send; publisher_sent() must follow, once, from the loop. */
struct publisher_transport {
    int (*send)(void *userdata, struct publisher *p, const char *topic, const void *request,
                size_t n, struct err *e);
    /* There has been nothing to send for a while. */
    void (*idle)(void *userdata);
};

/* transport is borrowed. 0 or -ENOMEM. */
int publisher_new(struct event_loop *loop, const char *namespace_,
                  const struct publisher_transport *transport, void *userdata,
                  struct publisher **ret);
/* Drops what is queued. Takes NULL. Returns NULL. */
struct publisher *publisher_free(struct publisher *p);
/* Queues an event of type containerd.events.*. The topic is a literal; it begins with "/tasks/".
 * Failing for want of memory it is logged. */
void publisher_publish(struct publisher *p, const char *topic, const ProtobufCMessage *event);
/* The outcome of send(): e NULL: it arrived. */
void publisher_sent(struct publisher *p, const struct err *e);
bool publisher_is_empty(const struct publisher *p);
/* Called when the queue has become empty; NULL: no more. */
void publisher_on_empty(struct publisher *p, void (*fn)(void *userdata), void *userdata);

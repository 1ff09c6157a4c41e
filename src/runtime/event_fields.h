/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fields of an envelope by name, for filters of subscribers: namespace, topic and event.<path>.
 *
 * Only what has text is there, as with containerd: strings that are not empty, values of string
 * maps (event.labels.<key>, the rest of the path being the key), and the same inside of messages
 * and of an Any of a known type. Numbers, times, bools and repeated fields are absent.
 */
#pragma once

#include "base/attr.h"
#include "types.pb-c.h"

struct event_fields {
    const Pb__Types__Envelope *envelope; /* borrowed */
    bool decoded;                        /* message was tried */
    ProtobufCMessage *message;           /* NULL: unknown type or broken bytes */
    ProtobufCMessage *inner;             /* the Any that was looked into last */
};

/* Nothing is decoded before a filter asks for it. */
static inline void event_fields_init(struct event_fields *f, const Pb__Types__Envelope *envelope)
{
    *f = (struct event_fields){.envelope = envelope};
}
void event_fields_done(struct event_fields *f);

/* A filter_field_fn; object is a struct event_fields, whose cache is filled. */
const char *event_fields_get(const void *object, const char *const *path, size_t n);

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/event_text.h"

#include <stdio.h>

#include "base/str.h"
#include "cli/json_out.h"
#include "cli/table.h"
#include "events.pb-c.h"
#include "services.images.v1.pb-c.h"
#include "wire/pb.h"

#define DEPTH_MAX 8

static const ProtobufCMessageDescriptor *const known[] = {
    &pb__event__container_create__descriptor,  &pb__event__container_update__descriptor,
    &pb__event__container_delete__descriptor,  &pb__event__content_delete__descriptor,
    &pb__images__image_create__descriptor,     &pb__images__image_update__descriptor,
    &pb__images__image_delete__descriptor,     &pb__event__namespace_create__descriptor,
    &pb__event__namespace_update__descriptor,  &pb__event__namespace_delete__descriptor,
    &pb__event__snapshot_prepare__descriptor,  &pb__event__snapshot_commit__descriptor,
    &pb__event__snapshot_remove__descriptor,   &pb__event__task_create__descriptor,
    &pb__event__task_start__descriptor,        &pb__event__task_delete__descriptor,
    &pb__event__task_exit__descriptor,         &pb__event__task_oom__descriptor,
    &pb__event__task_exec_added__descriptor,   &pb__event__task_exec_started__descriptor,
    &pb__event__task_paused__descriptor,       &pb__event__task_resumed__descriptor,
    &pb__event__task_checkpointed__descriptor,
};

static json_t *message_json(const ProtobufCMessage *m, unsigned depth);

/* One value at p; NULL for what is not set. Timestamps are texts, bytes are left out. */
static json_t *value_json(const ProtobufCFieldDescriptor *f, const void *p, unsigned depth)
{
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING: {
        const char *s = *(char *const *)p;
        return str_empty(s) ? NULL : json_text(s);
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *m = *(ProtobufCMessage *const *)p;
        if (!m)
            return NULL;
        if (m->descriptor == &google__protobuf__timestamp__descriptor)
            return json_time((const Google__Protobuf__Timestamp *)m);
        return message_json(m, depth + 1);
    }
    case PROTOBUF_C_TYPE_BOOL:
        return *(const protobuf_c_boolean *)p ? json_true() : NULL;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return *(const uint32_t *)p ? json_integer(*(const uint32_t *)p) : NULL;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_ENUM:
        return *(const int32_t *)p ? json_integer(*(const int32_t *)p) : NULL;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
        return *(const int64_t *)p ? json_integer(*(const int64_t *)p) : NULL;
    default:
        return NULL;
    }
}

static bool is_map(const ProtobufCFieldDescriptor *f)
{
    const ProtobufCMessageDescriptor *d = f->descriptor;

    return f->type == PROTOBUF_C_TYPE_MESSAGE && d->n_fields == 2 &&
           str_has_suffix(d->short_name, "Entry") &&
           d->sizeof_message == sizeof(struct pb_string_entry);
}

static json_t *repeated_json(const ProtobufCFieldDescriptor *f, const void *base, unsigned depth)
{
    size_t n = *(const size_t *)(const void *)((const char *)base + f->quantifier_offset);
    void *const *items = *(void *const *const *)(const void *)((const char *)base + f->offset);
    json_t *array;

    if (n == 0 || (f->type != PROTOBUF_C_TYPE_MESSAGE && f->type != PROTOBUF_C_TYPE_STRING))
        return NULL;
    if (is_map(f))
        return json_labels(items, n);
    array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *value = value_json(f, &items[i], depth);
        json_array_append_new(array, value ? value : json_null());
    }
    return array;
}

static json_t *message_json(const ProtobufCMessage *m, unsigned depth)
{
    json_t *object = json_object();

    for (unsigned i = 0; depth < DEPTH_MAX && i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        json_t *value = f->label == PROTOBUF_C_LABEL_REPEATED
                            ? repeated_json(f, m, depth)
                            : value_json(f, (const char *)m + f->offset, depth);
        if (value)
            json_put(object, f->name, value);
    }
    return object;
}

/* Types we do not know are shown by their name alone. */
static json_t *event_json(const Google__Protobuf__Any *any)
{
    struct err ignored = ERR_INIT;
    json_t *object;

    if (!any)
        return json_null();
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        ProtobufCMessage *m = NULL;

        if (!pb_any_is(any, known[i]) ||
            pb_unpack(known[i], any->value.data, any->value.len, &m, &ignored) < 0)
            continue;
        object = message_json(m, 0);
        pb_free(m);
        return object;
    }
    object = json_object();
    json_put(object, "type", json_text(any->type_url));
    return object;
}

void event_text_print(const Pb__Types__Envelope *envelope, bool json)
{
    json_t *event = event_json(envelope->event);
    _free_ char *text = NULL, *ns = NULL, *topic = NULL;
    char at[CLOCK_RFC3339_MAX];

    if (json) {
        json_t *object = json_object();

        json_put(object, "timestamp", json_time(envelope->timestamp));
        json_put(object, "namespace", json_text(envelope->namespace_));
        json_put(object, "topic", json_text(envelope->topic));
        json_put(object, "type", json_text(envelope->event ? envelope->event->type_url : ""));
        json_put(object, "event", event);
        text = json_dumps(object, JSON_COMPACT);
        json_decref(object);
        printf("%s\n", str_or_empty(text));
        return;
    }
    text = json_dumps(event, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(event);
    clock_rfc3339(pb_timestamp_get(envelope->timestamp), at);
    ns = table_escape(envelope->namespace_);
    topic = table_escape(envelope->topic);
    printf("%s %s %s %s\n", at, str_or_empty(ns), str_or_empty(topic), str_or_empty(text));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/event_fields.h"

#include "base/filter.h"
#include "base/identifier.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "linux.runc.pb-c.h"
#include "runc.v1.pb-c.h"
#include "services.images.v1.pb-c.h"
#include "wire/pb.h"

/* Everything that daemon and shims publish, and what its Anys hold, in no order: a look-up is for
 * an event that some filter asks about. */
static const ProtobufCMessageDescriptor *const known[] = {
    &pb__event__task_create__descriptor,       &pb__event__task_start__descriptor,
    &pb__event__task_exit__descriptor,         &pb__event__task_delete__descriptor,
    &pb__event__task_oom__descriptor,          &pb__event__task_exec_added__descriptor,
    &pb__event__task_exec_started__descriptor, &pb__event__task_paused__descriptor,
    &pb__event__task_resumed__descriptor,      &pb__event__task_checkpointed__descriptor,
    &pb__event__container_create__descriptor,  &pb__event__container_update__descriptor,
    &pb__event__container_delete__descriptor,  &pb__event__content_create__descriptor,
    &pb__event__content_delete__descriptor,    &pb__event__namespace_create__descriptor,
    &pb__event__namespace_update__descriptor,  &pb__event__namespace_delete__descriptor,
    &pb__event__sandbox_create__descriptor,    &pb__event__sandbox_start__descriptor,
    &pb__event__sandbox_exit__descriptor,      &pb__event__snapshot_prepare__descriptor,
    &pb__event__snapshot_commit__descriptor,   &pb__event__snapshot_remove__descriptor,
    &pb__images__image_create__descriptor,     &pb__images__image_update__descriptor,
    &pb__images__image_delete__descriptor,     &pb__runc__options__descriptor,
    &pb__linuxrunc__runc_options__descriptor,
};

static ProtobufCMessage *decode(const Google__Protobuf__Any *any)
{
    struct err ignored = ERR_INIT;
    ProtobufCMessage *m;

    for (size_t i = 0; any && i < ARRAY_SIZE(known); i++)
        if (pb_any_is(any, known[i]))
            return pb_unpack(known[i], any->value.data, any->value.len, &m, &ignored) < 0 ? NULL
                                                                                          : m;
    return NULL;
}

void event_fields_done(struct event_fields *f)
{
    pb_free(f->message);
    pb_free(f->inner);
    *f = (struct event_fields){};
}

static const char *present(const char *s)
{
    return str_empty(s) ? NULL : s;
}

/* The value of a key of a field that is a map of strings: an array of entry messages {key, value}.
 */
static const char *map_value(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *field,
                             const char *const *path, size_t n)
{
    const ProtobufCMessageDescriptor *entry = field->descriptor;
    struct pb_string_entry *const *entries =
        *(struct pb_string_entry *const *const *)((const char *)m + field->offset);
    size_t n_entries = *(const size_t *)((const char *)m + field->quantifier_offset);
    char key[LABEL_MAX + 1];

    if (n == 0 || entry->n_fields != 2 || !str_eq(entry->fields[0].name, "key") ||
        !str_eq(entry->fields[1].name, "value") ||
        entry->fields[0].type != PROTOBUF_C_TYPE_STRING ||
        entry->fields[1].type != PROTOBUF_C_TYPE_STRING)
        return NULL;
    filter_join_path(path, 0, n, key, sizeof(key));
    for (size_t i = 0; i < n_entries; i++)
        if (str_eq(entries[i]->key, key))
            return entries[i]->value;
    return NULL;
}

/* Follows the path through messages. A level a part, and the messages end somewhere, so the loop
 * does. */
static const char *field_of(struct event_fields *f, const ProtobufCMessage *m,
                            const char *const *path, size_t n)
{
    bool inside_any = false;

    while (m && n) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field_by_name(m->descriptor, path[0]);
        const void *member;

        if (!field)
            return NULL;
        path++;
        n--;
        if (field->label == PROTOBUF_C_LABEL_REPEATED)
            return field->type == PROTOBUF_C_TYPE_MESSAGE ? map_value(m, field, path, n) : NULL;
        member = (const char *)m + field->offset;
        if (field->type == PROTOBUF_C_TYPE_STRING)
            return n == 0 ? present(*(const char *const *)member) : NULL;
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            return NULL;
        m = *(const ProtobufCMessage *const *)member;
        if (m && field->descriptor == &google__protobuf__any__descriptor) {
            if (inside_any)
                return NULL;
            inside_any = true;
            pb_free(f->inner);
            m = f->inner = decode((const Google__Protobuf__Any *)m);
        }
    }
    return NULL;
}

const char *event_fields_get(const void *object, const char *const *path, size_t n)
{
    struct event_fields *f = (struct event_fields *)object;

    if (n == 1 && str_eq(path[0], "namespace"))
        return present(f->envelope->namespace_);
    if (n == 1 && str_eq(path[0], "topic"))
        return present(f->envelope->topic);
    if (n < 2 || !str_eq(path[0], "event"))
        return NULL;
    if (!f->decoded) {
        f->decoded = true;
        f->message = decode(f->envelope->event);
    }
    return field_of(f, f->message, path + 1, n - 1);
}

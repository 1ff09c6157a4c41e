/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/late_ends.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "events.pb-c.h"
#include "wire/pb.h"

void late_ends_init(struct late_ends *l)
{
    *l = (struct late_ends){};
    list_init(&l->kept);
}

static void drop(struct late_ends *l, struct late_end *end)
{
    list_remove(&end->link);
    l->n_kept--;
    pb_free(&end->envelope->base);
    free(end->key);
    free(end);
}

void late_ends_done(struct late_ends *l)
{
    while (!list_is_empty(&l->kept))
        drop(l, container_of(l->kept.next, struct late_end, link));
    map_done(&l->awaited);
    l->awaited = (struct map)MAP_INIT;
}

int late_ends_await(struct late_ends *l, const char *ns, const char *id)
{
    _free_ char *key = str_printf("%s/%s", ns, id);

    if (!key)
        return -ENOMEM;
    if (l->until_ms == 0)
        l->until_ms = clock_monotonic_ms() + LATE_ENDS_MS;
    return map_set(&l->awaited, key, l);
}

/* Nothing tells when the time is over: what was kept goes with the next event or subscriber. */
static bool is_over(struct late_ends *l)
{
    if (l->awaited.n == 0 && l->n_kept == 0)
        return true;
    if (clock_monotonic_ms() < l->until_ms)
        return false;
    late_ends_done(l);
    return true;
}

/* Which task an event is about: "ns/id", NULL when it is none of those that matter here. */
static char *key_of(const Pb__Types__Envelope *envelope)
{
    const ProtobufCMessageDescriptor *type = NULL;
    ProtobufCMessage *message = NULL;
    const char *id = NULL;
    struct err e = ERR_INIT;

    if (str_eq(envelope->topic, "/tasks/exit"))
        type = &pb__event__task_exit__descriptor;
    else if (str_eq(envelope->topic, "/tasks/oom"))
        type = &pb__event__task_oom__descriptor;
    else if (str_eq(envelope->topic, "/tasks/create"))
        type = &pb__event__task_create__descriptor;
    if (!type || !envelope->event ||
        pb_unpack(type, envelope->event->value.data, envelope->event->value.len, &message, &e) < 0)
        return NULL;
    if (type == &pb__event__task_exit__descriptor)
        id = ((const Pb__Event__TaskExit *)message)->container_id;
    else if (type == &pb__event__task_oom__descriptor)
        id = ((const Pb__Event__TaskOOM *)message)->container_id;
    else
        id = ((const Pb__Event__TaskCreate *)message)->container_id;
    char *key = str_printf("%s/%s", envelope->namespace_, id);
    pb_free(message);
    return key;
}

static void forget(struct late_ends *l, const char *key)
{
    struct late_end *end, *next;

    LIST_FOREACH_SAFE (end, next, &l->kept, link)
        if (str_eq(end->key, key))
            drop(l, end);
    map_remove(&l->awaited, key);
}

static void keep(struct late_ends *l, char *key, const Pb__Types__Envelope *envelope)
{
    _free_ uint8_t *bytes = NULL;
    _free_ char *owned = key;
    _free_ struct late_end *end = calloc(1, sizeof(*end));
    ProtobufCMessage *copy = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    if (!end || pb_pack(&envelope->base, &bytes, &n) < 0 ||
        pb_unpack(&pb__types__envelope__descriptor, bytes, n, &copy, &e) < 0) {
        log_warn("the end of task %s is not kept: out of memory", key);
        return;
    }
    if (l->n_kept >= LATE_ENDS_MAX)
        drop(l, container_of(l->kept.next, struct late_end, link));
    end->key = TAKE(owned);
    end->envelope = (Pb__Types__Envelope *)copy;
    list_push_back(&l->kept, &TAKE(end)->link);
    l->n_kept++;
}

void late_ends_note(struct late_ends *l, const Pb__Types__Envelope *envelope)
{
    if (is_over(l))
        return;
    _free_ char *key = key_of(envelope);
    if (!key || !map_get(&l->awaited, key))
        return;
    if (str_eq(envelope->topic, "/tasks/create"))
        forget(l, key);
    else
        keep(l, TAKE(key), envelope);
}

struct list *late_ends_kept(struct late_ends *l)
{
    is_over(l);
    return &l->kept;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* An intrusive, circular, doubly linked list. A link that is in no list points to itself. */
#pragma once

#include "base/attr.h"

struct list {
    struct list *prev, *next;
};

#define LIST_INIT(l)               \
    {                              \
        .prev = &(l), .next = &(l) \
    }

static inline void list_init(struct list *l)
{
    l->prev = l->next = l;
}
static inline bool list_is_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_push_back(struct list *head, struct list *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}
static inline void list_push_front(struct list *head, struct list *l)
{
    list_push_back(head->next, l);
}
/* May be called on a link that is in no list. */
static inline void list_remove(struct list *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    list_init(l);
}
static inline struct list *list_pop_front(struct list *head)
{
    struct list *l = head->next;
    if (l == head)
        return NULL;
    list_remove(l);
    return l;
}

#define LIST_FOREACH(item, head, member)                                                        \
    for (item = container_of((head)->next, __typeof__(*item), member); &item->member != (head); \
         item = container_of(item->member.next, __typeof__(*item), member))
/* The body may remove (and free) `item`; `tmp` is a second pointer of the same type. */
#define LIST_FOREACH_SAFE(item, tmp, head, member)                        \
    for (item = container_of((head)->next, __typeof__(*item), member),    \
        tmp = container_of(item->member.next, __typeof__(*item), member); \
         &item->member != (head);                                         \
         item = tmp, tmp = container_of(item->member.next, __typeof__(*item), member))

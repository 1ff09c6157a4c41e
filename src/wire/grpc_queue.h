/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on their way out: packed once, prefix included, and handed to HTTP/2 in pieces as
 * windows allow. A queue has one user at a time (its owner locks); its cap is its owner's account.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/attr.h"

struct grpc_chunk {
    struct grpc_chunk *next;
    size_t size;   /* prefix and payload */
    size_t offset; /* bytes already taken */
    uint8_t bytes[];
};

struct grpc_queue {
    struct grpc_chunk *first;
    struct grpc_chunk **last; /* NULL or &first while empty */
    size_t bytes;             /* not yet taken */
};

/* Packs a message with its prefix. -EMSGSIZE when the payload is over max (*ret_size then says how
 * large it is), -ENOMEM. The caller frees with free(). */
int grpc_chunk_new(const ProtobufCMessage *message, size_t max, struct grpc_chunk **ret,
                   size_t *ret_size);

static inline bool grpc_queue_is_empty(const struct grpc_queue *q)
{
    return !q->first;
}
void grpc_queue_push(struct grpc_queue *q, struct grpc_chunk *chunk); /* owns the chunk */
/* Moves everything of `from` behind what is in `to`. */
void grpc_queue_move(struct grpc_queue *to, struct grpc_queue *from);
/* Copies at most n bytes out and drops them. */
size_t grpc_queue_read(struct grpc_queue *q, uint8_t *out, size_t n);
void grpc_queue_clear(struct grpc_queue *q);

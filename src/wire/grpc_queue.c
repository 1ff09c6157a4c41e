/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/grpc_queue.h"

#include "wire/grpc_frame.h"

int grpc_chunk_new(const ProtobufCMessage *message, size_t max, struct grpc_chunk **ret,
                   size_t *ret_size)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    *ret_size = n;
    if (n > max || n > UINT32_MAX)
        return -EMSGSIZE;

    struct grpc_chunk *chunk = malloc(sizeof(*chunk) + GRPC_PREFIX_SIZE + n);
    if (!chunk)
        return -ENOMEM;
    chunk->next = NULL;
    chunk->offset = 0;
    chunk->size = GRPC_PREFIX_SIZE + n;
    grpc_prefix_write(chunk->bytes, (uint32_t)n);
    if (n > 0)
        protobuf_c_message_pack(message, chunk->bytes + GRPC_PREFIX_SIZE);
    *ret = chunk;
    return 0;
}

void grpc_queue_push(struct grpc_queue *q, struct grpc_chunk *chunk)
{
    if (!q->first)
        q->last = &q->first;
    *q->last = chunk;
    q->last = &chunk->next;
    q->bytes += chunk->size;
}

void grpc_queue_move(struct grpc_queue *to, struct grpc_queue *from)
{
    if (!from->first)
        return;
    if (!to->first)
        to->last = &to->first;
    *to->last = from->first;
    to->last = from->last;
    to->bytes += from->bytes;
    *from = (struct grpc_queue){};
}

size_t grpc_queue_read(struct grpc_queue *q, uint8_t *out, size_t n)
{
    size_t done = 0;

    while (q->first && done < n) {
        struct grpc_chunk *chunk = q->first;
        size_t take = MIN_OF(n - done, chunk->size - chunk->offset);
        memcpy(out + done, chunk->bytes + chunk->offset, take);
        chunk->offset += take;
        done += take;
        if (chunk->offset == chunk->size) {
            q->first = chunk->next;
            free(chunk);
        }
    }
    q->bytes -= done;
    return done;
}

void grpc_queue_clear(struct grpc_queue *q)
{
    while (q->first) {
        struct grpc_chunk *chunk = q->first;
        q->first = chunk->next;
        free(chunk);
    }
    *q = (struct grpc_queue){};
}

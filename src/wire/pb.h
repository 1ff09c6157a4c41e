/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between protobuf-c's structs and ours: Any, Timestamp, string maps, and checked unpacking.
 *
 * "Filled" messages allocate with malloc and are released with pb_free(), which is
 * protobuf_c_message_free_unpacked() without an allocator: a message built by hand from malloc'ed
 * parts (strings by strdup, sub-messages by malloc + init) is released the same way as an unpacked
 * one.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "base/any.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/strmap.h"
#include "google/protobuf/any.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"

#define PB_DEPTH_MAX 100
/* Memory for a byte of a message, beside 1 MiB for the message itself. Replies may be lists of many
 * small things (the processes of a container); no request is. */
#define PB_REPLY_COST 16
#define PB_REQUEST_COST 4

/* Unpacks after a look over the nesting (at most PB_DEPTH_MAX deep by the descriptor) and over the
 * strings (UTF-8): ERR_INVALID_ARGUMENT; and over the memory that it will take, what is needed for
 * unpacking alone included: ERR_RESOURCE_EXHAUSTED. The caller frees with pb_free(). */
int pb_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
              ProtobufCMessage **ret, struct err *e);
/* The same for what clients send. */
int pb_unpack_request(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t n,
                      ProtobufCMessage **ret, struct err *e);
void pb_free(ProtobufCMessage *m); /* takes NULL */
/* malloc'ed and packed; *ret may be NULL when the message is empty and n is 0. -ENOMEM. */
int pb_pack(const ProtobufCMessage *m, uint8_t **ret, size_t *ret_n);

/* A new Timestamp. "No time" (seconds 0 and nanoseconds 0, or CLOCK_ZERO_SECONDS) becomes Go's year
 * 1, which 1.x and 2.x peers both read as none. NULL: out of memory. */
Google__Protobuf__Timestamp *pb_timestamp_new(struct timespec t);
/* Year 1 and absent both read as {0, 0}. */
struct timespec pb_timestamp_get(const Google__Protobuf__Timestamp *t);

/* type_url comes with or without a prefix that ends in '/': "types.containerd.io/..." names are
 * kept whole, otherwise what follows the last '/' is the name. */
const char *pb_type_name(const char *type_url);
/* Borrowed view -> copy. NULL reads as absent. */
int pb_any_get(const Google__Protobuf__Any *from, struct any *to);
/* NULL for an absent any or when out of memory. */
Google__Protobuf__Any *pb_any_new(const struct any *from);
/* Packs a message under its full protobuf name. */
Google__Protobuf__Any *pb_any_pack(const ProtobufCMessage *m);
int any_pack(struct any *to, const ProtobufCMessage *m);
/* True if type_url names the descriptor's message. */
bool pb_any_is(const Google__Protobuf__Any *a, const ProtobufCMessageDescriptor *descriptor);

/*
 * Maps of strings: protobuf-c makes each an array of pointers to entry messages {base, key, value},
 * a type of its own per field but of one shape.
 */
struct pb_string_entry {
    ProtobufCMessage base;
    char *key;
    char *value;
};
/* entries: the field as it is, e.g. (void *)m->labels. */
int pb_strmap_get(void *const *entries, size_t n, struct strmap *to);
/* Makes the array of new entry messages of the given type; 0 or -ENOMEM. */
int pb_strmap_new(const struct strmap *from, const ProtobufCMessageDescriptor *entry, void ***ret,
                  size_t *ret_n);

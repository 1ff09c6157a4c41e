/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A List that is answered by a stream of batches (content, snapshots). What the client has not
 * taken is not read yet: the next batch comes when it has, and between batches nothing but the name
 * of the last one is kept.
 */
#pragma once

#include "base/filter.h"
#include "wire/grpc_server.h"

struct listing {
    void *source;          /* what is walked; outlives the call */
    char *ns;              /* owned, like the rest */
    char *after;           /* name of the last one sent; NULL: none yet */
    struct filter *filter; /* NULL: all */
    /* Gives what comes behind `after` and passes the filter to listing_add(), until that returns
     * something else than 0, which is returned then. 0: there is no more. */
    int (*walk)(struct listing *l, struct err *e);
    struct listing_batch *batch;
};

/*
 * Answers the call, now and whenever the client has taken what was sent. `reply` describes a
 * message of nothing but `repeated Info info`.
 */
void listing_begin(struct grpc_call *call, const ProtobufCMessageDescriptor *reply, const char *ns,
                   char *const *filters, size_t n_filters, void *source,
                   int (*walk)(struct listing *l, struct err *e));
/* For walk(): takes the message of the one with this name (NULL: there was no memory for it). 1:
 * the batch is full, 0: go on, -ENOMEM. */
int listing_add(struct listing *l, const char *name, ProtobufCMessage *info);

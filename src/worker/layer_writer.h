/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes (changes.h) into a layer: the tar that makes the left tree into the right one.
 *
 *   - what is new or changed stands there whole, with times to the nanosecond; what was deleted as
 *     an empty file ".wh.NAME" of the year 1970;
 *   - the directories above stand before what is in them, changed or not;
 *   - the first name of a file with several is the file, the others are links to it; where one name
 *     is new, the unchanged ones are written as links too;
 *   - a file that shrinks while it is read is filled up with zeros, one that grows is cut;
 *   - holes are written as zeros: layers must not use the sparse formats of tar.
 *
 * Names that begin with ".wh." cannot be said in a layer: ERR_FAILED_PRECONDITION.
 * ERR_RESOURCE_EXHAUSTED over the limits.
 */
#pragma once

#include "worker/links.h"
#include "worker/tar_writer.h"
#include "worker/xattrs.h"

struct layer_writer {
    struct tar_writer *tar; /* borrowed */
    int root_fd;            /* of the right tree, borrowed */
    bool has_newest;
    struct timespec newest; /* later times become this one */
    uint64_t max_bytes;     /* of the files' content */
    uint64_t bytes;
    uint64_t max_entries;
    uint64_t entries;
    struct links links;
    struct xattrs *xattrs;
    uint8_t *block;
    bool warned_xattr;
};

int layer_writer_init(struct layer_writer *w, struct tar_writer *tar, int root_fd,
                      uint64_t max_bytes, uint64_t max_entries, struct err *e);
void layer_writer_done(struct layer_writer *w);
/* A change_fn. */
int layer_writer_add(void *layer_writer, const struct change *c, struct err *e);

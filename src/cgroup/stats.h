/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a container's control group has counted, as io.containerd.cgroups.v1.Metrics or
 * io.containerd.cgroups.v2.Metrics. Files that are not there are left out; on v2 the group must be.
 *
 * Both read small kernel files into tables of names and fields: a name that is not in a table is
 * passed over, so newer kernels add nothing and break nothing.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>

#include "cgroup/cgroup.h"

/* The caller frees with pb_free(). ERR_UNKNOWN when out of memory. */
int stats_v1(const struct cgroup *c, Google__Protobuf__Any **ret, struct err *e);
int stats_v2(const struct cgroup *c, Google__Protobuf__Any **ret, struct err *e);

/* Shared by both. */

#define STATS_FILE_MAX 65536

struct stats_field {
    const char *name;
    size_t at; /* of a uint64_t in the message */
};
/* The file's text, NULL if it cannot be read. The caller frees. */
char *stats_read(const char *dir, const char *file);
/* One number; "max" (v2) and what is no number or too large yield the second argument. A missing
 * file yields 0. */
uint64_t stats_number(const char *dir, const char *file, uint64_t otherwise);
/* Lines "<name> <number>" into fields of message. False if the file is missing. */
bool stats_fields(const char *dir, const char *file, const struct stats_field *fields, size_t n,
                  void *message);
/* A zeroed message with its descriptor set; NULL: out of memory. */
void *stats_message(const ProtobufCMessageDescriptor *descriptor);
/* Appends a new message to a repeated field {n, items}; NULL: out of memory or over the cap. */
#define STATS_ITEMS_MAX 4096
void *stats_append(size_t *n, void *items, const ProtobufCMessageDescriptor *descriptor);
/* The next word of *line (up to a space or the line's end), NUL-terminated in place; NULL: none. */
char *stats_word(char **line);
/* The next line of *text, cut off in place; NULL at the end. */
char *stats_line(char **text);
/* The rdma.current and rdma.max format, alike in v1 and v2: "<device> hca_handle=N hca_object=N".
 */
struct stats_rdma {
    char *device;
    uint32_t hca_handles, hca_objects;
};
/* Parses one line; false if it is none. device is borrowed from the line. */
bool stats_rdma_line(char *line, struct stats_rdma *ret);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blobs that the daemon makes itself: a directory as a tar, the difference of two, or a few bytes;
 * and such a tar back into a directory. Layers and checkpoints are made of these.
 *
 * The tar holds all that is below the directory, not the directory itself, in one order, so the
 * same tree gives the same digest. Tars are written and read by wherry-worker alone (worker_job.h).
 * Everything here blocks: it is for threads of the pool.
 *
 * The rules of a blob are those of Content.Write: one writer a reference at a time (ERR_UNAVAILABLE
 * "ref ... locked for ..."), the ingest and then the blob belong to the lease, and the blob is on
 * record, synced, when the function returns. What an earlier writer left under the reference is
 * written anew. A blob that the namespace has already is no error; its labels stay. On failure the
 * ingest is given up.
 */
#pragma once

#include "base/strmap.h"
#include "oci/image.h"
#include "wire/grpc_server.h"

struct service_context;

/* Whose blob it is, and under which reference it is written. All borrowed. */
struct blob_place {
    struct service_context *ctx;
    const struct grpc_call *call; /* whose end cancels; NULL: nobody cancels */
    const char *ns;
    const char *lease; /* "": none */
    const char *ref;   /* not looked at by blob_unpack() */
};

/*
 * The directory as an uncompressed tar; labels may be NULL. dir_fd: O_RDONLY|O_DIRECTORY, opened in
 * the daemon's mount namespace. It is read while it is packed: who wants a consistent tree keeps
 * others from writing to it. *ret is a descriptor of media_type, freed with descriptor_done().
 * ERR_CANCELED "context canceled"; ERR_RESOURCE_EXHAUSTED for a full disk or an ended worker;
 * ERR_FAILED_PRECONDITION for a tree that no tar can hold (a name longer than 4096 bytes, or with
 * the ".wh." of whiteouts).
 */
int blob_store_directory(const struct blob_place *p, int dir_fd, const char *media_type,
                         const struct strmap *labels, struct descriptor *ret, struct err *e);

/* A layer of OCI. All borrowed. */
struct blob_layer {
    const char *media_type;
    const char *format;          /* "tar", "gzip", "zstd" */
    const struct strmap *labels; /* NULL: none */
    int left_fd, right_fd;       /* directories as above; left_fd -EBADF: nothing */
    bool has_newest;
    struct timespec newest; /* later times of files become this one */
};
/* What makes the left directory into the right one (worker/layer_writer.h), otherwise as above. A
 * compressed layer gets the label "containerd.io/uncompressed". */
int blob_store_layer(const struct blob_place *p, const struct blob_layer *layer,
                     struct descriptor *ret, struct err *e);

/* n bytes as they are. */
int blob_store_bytes(const struct blob_place *p, const void *bytes, size_t n,
                     const char *media_type, const struct strmap *labels, struct descriptor *ret,
                     struct err *e);

/*
 * A tar blob of the namespace into an existing, empty directory (as above, and writable). Owners,
 * modes, times and xattrs are set as those of a layer; names cannot lead out of the directory. On
 * failure part of it is there: the caller throws the directory away. ERR_NOT_FOUND
 * "content sha256:...: not found"; ERR_INVALID_ARGUMENT for bytes that are no tar;
 * ERR_FAILED_PRECONDITION for a blob damaged on disk.
 */
int blob_unpack(const struct blob_place *p, const char *digest, int dir_fd, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One job of wherry-worker, the process that reads bytes and trees nobody vouches for (its
 * contract: worker/job.h). The caller is a thread that may block. The worker dies with the daemon,
 * and is killed when the client's call is over.
 */
#pragma once

#include "base/err.h"
#include "oci/digest.h"
#include "wire/grpc_server.h"

#define WORKER_PARENTS_MAX 500

/* All borrowed. */
struct worker_apply {
    const char *worker_path;
    int blob_fd;           /* at position 0 */
    int target_fd;         /* directory */
    const int *parent_fds; /* lower directories, nearest first */
    size_t n_parents;
    const char *format;    /* "auto", "tar", "gzip", "zstd" */
    const char *whiteouts; /* "overlay", "overlay-user", "plain" */
    bool sync;
    const struct grpc_call *call; /* NULL: nobody cancels */
};

struct worker_applied {
    char digest[DIGEST_STR_MAX]; /* of the uncompressed tar */
    int64_t size_bytes;
    char blob_digest[DIGEST_STR_MAX];
    int64_t blob_size_bytes;
};

/* Applies a layer to a directory. On failure a part of it may be there. The worker's own sentence
 * and code; ERR_CANCELED "context canceled"; ERR_RESOURCE_EXHAUSTED for a worker that its limits
 * ended. */
int worker_apply(const struct worker_apply *job, struct worker_applied *ret, struct err *e);
/* The blob was read to its end: it must have been what its name says. ERR_FAILED_PRECONDITION. */
int worker_check_blob(const struct worker_applied *applied, const char *digest, struct err *e);

/* Takes bytes of a layer as they come; negative ends the worker. */
typedef int (*worker_sink_fn)(void *sink, const void *bytes, size_t n, struct err *e);

/* All borrowed. */
struct worker_diff {
    const char *worker_path;
    int left_fd;        /* directory; -EBADF: nothing */
    int right_fd;       /* directory */
    const char *format; /* "tar", "gzip", "zstd" */
    bool has_newest;
    struct timespec newest;
    worker_sink_fn fn;
    void *sink;
    const struct grpc_call *call; /* NULL: nobody cancels */
};

/* Makes the layer that turns left into right, in pieces for fn, on the caller's thread. digest:
 * that of the uncompressed tar, "" for format "tar". Errors as above, and those of fn. */
int worker_diff(const struct worker_diff *job, char ret_digest[DIGEST_STR_MAX], struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The jobs of wherry-worker and their contract with whoever starts it. One process does one job and
 * ends; it reads nothing but its descriptors and writes nothing but its descriptors.
 *
 *   wherry-worker apply --format auto|tar|gzip|zstd --whiteouts overlay|overlay-user|plain
 *                       [--sync] [--parents N] [--max-bytes N] [--max-entries N]
 *
 *     fd 0   the layer: a regular file at position 0, or a pipe
 *     fd 1   the result: one JSON object and a newline
 *     fd 2   log lines
 *     fd 3   the target directory, opened O_RDONLY|O_DIRECTORY in the mount namespace the worker
 *            is started in. overlay, overlay-user: the snapshot's upper directory; whiteouts become
 *            what overlayfs reads (a 0:0 character device; opaque: trusted. or
 *            user.overlay.opaque=y). plain: the root itself (a mounted snapshot); whiteouts delete
 *            what was there before.
 *     fd 4.. N directories for --parents: the lower directories, nearest first, from which a
 *            directory that the layer implies but does not hold takes owner, mode and xattrs
 *            (otherwise 0755, root)
 *
 *     result {"digest":"sha256:...","size":N,"blob_digest":"sha256:...","blob_size":N,"entries":N}
 *            digest and size are of the uncompressed tar, blob_* of the bytes of fd 0, both read to
 *            their very end. Comparing blob_digest with what was wanted is the caller's part.
 *     or     {"error":"<one sentence>","code":<number of google.rpc.Code>}
 *     status 0 or 1. Any other end (a signal, another status, no result) means that the worker was
 *            killed, by its limits or by its sandbox.
 *
 *   On failure the target holds part of the layer: the caller throws it away.
 *
 *   wherry-worker import [--max-bytes N] [--max-entries N]
 *
 *     fd 0   an image archive: tar, or tar in gzip or zstd; pipe or file
 *     fd 1   a stream of records, each one JSON object and a newline:
 *              {"name":"blobs/sha256/...","size":N}     followed by exactly N raw bytes
 *              {"name":"a/layer.tar","link":"b/layer.tar"}
 *                                                       symbolic and hard links; the target is a
 *                                                       name within the archive, resolved already
 *              {"end":true}                             always the last record of a success
 *              {"error":"<one sentence>","code":N}      the last record of a failure, but see below
 *     fd 2   log lines
 *     status 0 or 1
 *
 *   Names are relative, clean, and hold no ".."; directories and special files are left out. When
 *   the archive breaks off inside a member, the stream ends short of that member's N bytes and the
 *   sentence stands on fd 2 only.
 *
 *   wherry-worker diff --format tar|gzip|zstd [--parents 1] [--newest SECONDS.NANOSECONDS]
 *                      [--max-bytes N] [--max-entries N]
 *
 *     fd 0   the layer, written: a pipe
 *     fd 1   the result, as above
 *     fd 2   log lines
 *     fd 3   the right tree: a directory, only read
 *     fd 4   with --parents 1: the left tree, likewise. Without: nothing is on the left, and the
 * layer holds all of the right tree.
 *
 *     result {"digest":"sha256:...","size":N,"entries":N}
 *            of the uncompressed tar; a layer of format tar has no digest here, it is that of fd 0
 *     or     an error, as above
 *     status 0 or 1
 *
 *   The layer makes the left tree into the right one (layer_writer.h). Times later than --newest
 * are written as that. The result comes when all of the layer is in the pipe; on failure what came
 * out of it is worth nothing.
 *
 * All jobs confine themselves before they read the first byte (confine.h).
 */
#pragma once

#include "oci/digest.h"
#include "worker/decode.h"
#include "worker/tree.h"

#define JOB_TARGET_FD 3
#define JOB_PARENTS_MAX 500
#define JOB_MAX_BYTES_DEFAULT (UINT64_C(256) << 30) /* of uncompressed tar */
#define JOB_MAX_ENTRIES_DEFAULT UINT64_C(2000000)

struct job_limits {
    uint64_t max_bytes;
    uint64_t max_entries;
};

struct apply_job {
    enum decode_format format;
    enum whiteouts whiteouts;
    bool sync;
    int in_fd;
    int target_fd;
    const int *parent_fds;
    size_t n_parents;
    struct job_limits limits;
};
struct apply_result {
    char digest[72]; /* "sha256:" and hex */
    uint64_t size_bytes;
    char blob_digest[72];
    uint64_t blob_size_bytes;
    uint64_t entries;
};
int apply_run(const struct apply_job *job, struct apply_result *ret, struct err *e);

struct import_job {
    int in_fd;
    int out_fd;
    struct job_limits limits;
};
/* *ret_in_member: the failure came inside a member's bytes, no record may follow. */
int import_run(const struct import_job *job, bool *ret_in_member, struct err *e);

struct diff_job {
    enum decode_format format; /* not DECODE_AUTO */
    int left_fd;               /* -EBADF: nothing */
    int right_fd;
    int out_fd;
    bool has_newest;
    struct timespec newest;
    struct job_limits limits;
};
struct diff_result {
    char digest[DIGEST_STR_MAX]; /* "" for DECODE_TAR */
    uint64_t size_bytes;
    uint64_t entries;
};
int diff_run(const struct diff_job *job, struct diff_result *ret, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing one blob: Content.Write, the requests streamed without waiting for each answer. A blob
 * that is there already is success, whenever the daemon says so.
 */
#pragma once

#include "base/strmap.h"
#include "cli/rpc.h"
#include "oci/digest.h"

#define CONTENT_WRITER_QUEUE_MAX (8u << 20) /* bytes on the way before we wait */

struct content_writer {
    struct cli *cli;
    struct grpc_client_call *call; /* NULL: not open, or over */
    char *ref;
    char *expected; /* "" while unknown */
    int64_t total, offset;
    bool is_first;
    bool committing;
    char digest[DIGEST_STR_MAX]; /* of the committed blob */
    struct err err;              /* ERR_ALREADY_EXISTS for a blob that was there */
};

/* expected: "" or the digest. total: bytes. */
int content_writer_open(struct content_writer *w, struct cli *cli, const char *ref,
                        const char *expected, int64_t total, struct err *e);
/* No-op once the daemon said that it has the blob. */
int content_writer_write(struct content_writer *w, const void *bytes, size_t n, struct err *e);
/* Waits for the end; w->digest is valid then. */
int content_writer_commit(struct content_writer *w, struct err *e);
/* Gives up what is not committed. Takes a zeroed struct. */
void content_writer_done(struct content_writer *w);

/* A small blob in one go; its digest into ret_digest. */
int content_write_bytes(struct cli *cli, const char *ref, const void *bytes, size_t n,
                        char ret_digest[DIGEST_STR_MAX], struct err *e);
/* Sets labels of a blob. */
int content_set_labels(struct cli *cli, const char *digest, const struct strmap *labels,
                       struct err *e);
/* 1: there, 0: not, or an error. */
int content_exists(struct cli *cli, const char *digest, struct err *e);

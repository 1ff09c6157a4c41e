/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking an image archive apart: wherry-worker reads the untrusted tar in its sandbox, we move its
 * members into the content store and remember what came. Runs under a lease.
 */
#pragma once

#include "base/map.h"
#include "cli/cli.h"
#include "oci/digest.h"

#define ARCHIVE_DOCUMENT_MAX (4u << 20)   /* bytes of a member that is kept as a document */
#define ARCHIVE_DOCUMENTS_MAX (64u << 20) /* bytes of all of them */
#define ARCHIVE_MEMBERS_MAX 100000

/* A member: a document in memory, or a blob in the content store. */
struct archive_member {
    char digest[DIGEST_STR_MAX]; /* "": no blob */
    int64_t size;
    char *text;   /* NULL: no document; NUL behind the last byte */
    char *target; /* of a link, NULL else */
};

struct archive {
    struct map members; /* name -> struct archive_member */
    size_t document_bytes;
    unsigned n_blobs;
};
void archive_done(struct archive *a);

/* fd: the archive. ref_prefix: unique, for the names of writes. */
int archive_read(struct archive *a, struct cli *cli, int fd, const char *ref_prefix, struct err *e);
/* Follows links. NULL: not in the archive. Borrowed. */
const struct archive_member *archive_find(const struct archive *a, const char *name);
/* Whether the blob came with the archive. */
bool archive_has_blob(const struct archive *a, const char *digest);

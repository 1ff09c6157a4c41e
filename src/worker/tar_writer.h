/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libarchive as a writer of plain tar: ustar, with PAX headers for what ustar cannot hold (long or
 * non-ASCII names, fractions of a second, large numbers, xattrs). Names go out as the bytes they
 * are. Of the time, the machine and user names nothing goes in, so equal entries give equal bytes.
 */
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include "base/err.h"

/* Takes n bytes of the tar; 0 or negative with e filled in. */
typedef int (*tar_sink_fn)(void *sink, const void *bytes, size_t n, struct err *e);

struct tar_writer {
    struct archive *archive;
    struct archive_entry *entry; /* cleared by tar_writer_begin() */
    tar_sink_fn fn;
    void *sink;
    bool sink_failed;
    struct err sink_err;
};

/* The struct must not move afterwards. */
int tar_writer_init(struct tar_writer *t, tar_sink_fn fn, void *sink, struct err *e);
void tar_writer_done(struct tar_writer *t);

/* An entry to be filled in, whose header tar_writer_header() then writes. */
struct archive_entry *tar_writer_begin(struct tar_writer *t);
int tar_writer_header(struct tar_writer *t, struct err *e);
/* Of the size that the header says: not more; what is missing becomes zeros with the next entry. */
int tar_writer_bytes(struct tar_writer *t, const void *bytes, size_t n, struct err *e);
/* The end of the archive. */
int tar_writer_finish(struct tar_writer *t, struct err *e);

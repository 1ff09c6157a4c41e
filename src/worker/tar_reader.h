/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libarchive as a reader of plain tar: ustar, PAX, GNU and old tar, none of its own filters. Names
 * come out as the bytes they are.
 */
#pragma once

#include <archive.h>
#include <archive_entry.h>

#include "base/err.h"

/* The next bytes of the tar, valid until the next call: 1 and bytes, 0 at the end, negative with e
 * filled in. */
typedef int (*tar_source_fn)(void *source, const uint8_t **ret, size_t *ret_len, struct err *e);

struct tar_reader {
    struct archive *archive;
    tar_source_fn fn;
    void *source;
    bool source_failed;
    struct err source_err;
    uint64_t entries;
    uint64_t max_entries;
};

/* Opens at the first bytes. The struct must not move afterwards. */
int tar_reader_init(struct tar_reader *t, tar_source_fn fn, void *source, uint64_t max_entries,
                    struct err *e);
void tar_reader_done(struct tar_reader *t);
/* 1 and an entry, borrowed until the next call; 0 at the end of the archive. */
int tar_reader_next(struct tar_reader *t, struct archive_entry **ret, struct err *e);
/* 1 and bytes of the entry that go to *ret_offset; 0 at its end. Holes are left out. */
int tar_reader_block(struct tar_reader *t, const void **ret, size_t *ret_len, int64_t *ret_offset,
                     struct err *e);

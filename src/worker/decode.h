/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads an fd and gives out what is in it uncompressed, hashing the bytes of the fd on the way.
 *
 *   gzip  all members; the CRC and length of each are checked. What follows the last member and
 *         is no member is left out with a log line, as gzip(1) does. ISA-L where the build has it,
 *         else zlib.
 *   zstd  all frames, skippable ones too; windows up to 128 MiB.
 *
 * Input that breaks off is an error. The input is read to its end in every case.
 */
#pragma once

#include "base/err.h"

enum decode_format { DECODE_AUTO, DECODE_TAR, DECODE_GZIP, DECODE_ZSTD };

struct decoder;

/* The fd is borrowed. Reads the first bytes; DECODE_AUTO looks for the magic numbers and takes
 * anything else as it is. */
int decoder_new(int fd, enum decode_format format, struct decoder **ret, struct err *e);
/* Takes NULL. Returns NULL. */
struct decoder *decoder_free(struct decoder *d);

/* Fills size bytes, less only at the end, 0 from then on. Negative: failed, see e. */
ssize_t decoder_read(struct decoder *d, uint8_t *bytes, size_t size, struct err *e);

/* Valid once decoder_read() has returned 0: SHA-256 and number of the bytes of the fd. */
int decoder_blob(struct decoder *d, uint8_t ret_hash[32], uint64_t *ret_bytes, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compresses what it is given into an fd: the counterpart of decode.h.
 *
 *   gzip  one member without name and time. By ISA-L where the build has it, which is many times
 *         faster than zlib at its usual level and makes about an eighth more of it; else by zlib.
 *   zstd  one frame, level 3, with a checksum.
 *
 * The same bytes in the same pieces give the same output, on the same machine and libraries.
 */
#pragma once

#include "base/err.h"
#include "worker/decode.h"

struct encoder;

/* The fd is borrowed. DECODE_AUTO is not for writing. */
int encoder_new(int fd, enum decode_format format, struct encoder **ret, struct err *e);
/* Takes NULL. Returns NULL. */
struct encoder *encoder_free(struct encoder *x);
int encoder_write(struct encoder *x, const void *bytes, size_t n, struct err *e);
/* What is still in it, and the end of the format. */
int encoder_finish(struct encoder *x, struct err *e);

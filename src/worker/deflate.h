/* SPDX-License-Identifier: Apache-2.0 */
/* One gzip member, by ISA-L or zlib. */
#pragma once

#include "base/attr.h"

struct deflater;

struct deflater *deflater_new(void);                /* NULL: out of memory */
struct deflater *deflater_free(struct deflater *x); /* takes NULL, returns NULL */

/* Moves *in and *out forward. True when all the input is taken and, at the end of the member, all
 * the output given; false: more room is needed. */
bool deflater_run(struct deflater *x, const uint8_t **in, size_t *in_len, uint8_t **out,
                  size_t *out_len, bool end);

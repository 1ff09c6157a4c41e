/* SPDX-License-Identifier: Apache-2.0 */
/* One gzip member at a time, by ISA-L or zlib. */
#pragma once

#include "base/attr.h"

struct inflater;

struct inflater *inflater_new(void); /* NULL: out of memory */
struct inflater *inflater_free(struct inflater *x);

/* Moves *in and *out forward. 1: the member is complete and verified, *in stands behind it, and the
 * next call begins another; 0: more input or more room is needed; -EBADMSG with a static *ret_why:
 * broken. */
int inflater_run(struct inflater *x, const uint8_t **in, size_t *in_len, uint8_t **out,
                 size_t *out_len, const char **ret_why);

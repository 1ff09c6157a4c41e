/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for the detach sequence, ctrl-p ctrl-q, in what is typed. Bytes in, bytes out. */
#pragma once

#include "base/attr.h"

struct detach_keys {
    bool held; /* a ctrl-p was typed and is kept back until the next byte says what it was */
};

/*
 * Filters n bytes into out, which has room for n + 1: a ctrl-p kept back may come before them.
 * Returns true when the sequence was seen; bytes behind it are dropped.
 */
bool detach_keys_feed(struct detach_keys *d, const uint8_t *in, size_t n, uint8_t *out,
                      size_t *ret_n);

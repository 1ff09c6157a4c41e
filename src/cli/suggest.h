/* SPDX-License-Identifier: Apache-2.0 */
/* The nearest of the known names to one that somebody mistyped. */
#pragma once

#include "base/attr.h"

struct suggest {
    const char *word;
    const char *best; /* NULL while nothing is near; borrowed from the candidates */
    unsigned distance;
};
#define SUGGEST_INIT(word_) \
    {                       \
        .word = (word_)     \
    }

/* Near: a prefix, or at most a third of the letters wrong, missing, added or swapped. */
void suggest_try(struct suggest *s, const char *candidate);

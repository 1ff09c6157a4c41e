/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/suggest.h"

#include "base/str.h"

#define WORD_MAX 32

/* Optimal string alignment: edits and swaps of neighbours. Words over WORD_MAX are never near. */
static unsigned distance(const char *a, const char *b)
{
    unsigned d[WORD_MAX + 1][WORD_MAX + 1];
    size_t n = strlen(a), m = strlen(b);

    if (n > WORD_MAX || m > WORD_MAX)
        return UINT32_MAX;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            unsigned cost = a[i - 1] == b[j - 1] ? 0 : 1;
            unsigned least = MIN_OF(d[i - 1][j] + 1, d[i][j - 1] + 1);

            least = MIN_OF(least, d[i - 1][j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                least = MIN_OF(least, d[i - 2][j - 2] + 1);
            d[i][j] = least;
        }
    }
    return d[n][m];
}

void suggest_try(struct suggest *s, const char *candidate)
{
    size_t n = strlen(s->word);
    unsigned far = n < 3 ? 1 : (unsigned)((n + 2) / 3);
    unsigned this = distance(s->word, candidate);

    if (this > far && n >= 3 && str_after_prefix(candidate, s->word))
        this = far;
    if (this > far || (s->best && this >= s->distance))
        return;
    s->best = candidate;
    s->distance = this;
}

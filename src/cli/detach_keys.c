/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/detach_keys.h"

#define CTRL_P 0x10
#define CTRL_Q 0x11

bool detach_keys_feed(struct detach_keys *d, const uint8_t *in, size_t n, uint8_t *out,
                      size_t *ret_n)
{
    size_t written = 0;
    bool detach = false;

    for (size_t i = 0; i < n && !detach; i++) {
        if (d->held && in[i] == CTRL_Q) {
            d->held = false;
            detach = true;
            continue;
        }
        if (d->held)
            out[written++] = CTRL_P;
        d->held = in[i] == CTRL_P;
        if (!d->held)
            out[written++] = in[i];
    }
    *ret_n = written;
    return detach;
}

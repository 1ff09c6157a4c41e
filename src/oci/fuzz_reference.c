/* SPDX-License-Identifier: Apache-2.0 */
/* References, digests and platforms; a full name must be its own full name. */
#include <assert.h>

#include "base/str.h"
#include "oci/digest.h"
#include "oci/platform.h"
#include "oci/reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    _free_ char *s = strndup((const char *)data, size);
    _free_ char *full = NULL;
    struct platform p;
    struct err e = ERR_INIT;

    if (!s)
        return 0;
    if (reference_normalise(s, &full, &e) == 0) {
        _free_ char *again = NULL;
        assert(reference_normalise(full, &again, NULL) == 0 && str_eq(full, again));
        _free_ char *familiar = reference_familiar(full);
        _free_ char *back = NULL;
        assert(familiar && reference_normalise(familiar, &back, NULL) == 0 && str_eq(full, back));
        assert(reference_name_is_storable(full));
    }
    if (digest_is_valid(s))
        assert(!strchr(s, '/') && !strchr(s, '.'));
    if (platform_parse(s, &p, &e) == 0) {
        char text[PLATFORM_STR_MAX];
        struct platform q;
        platform_format(&p, text);
        assert(platform_parse(text, &q, NULL) == 0);
        assert(platform_match(&p, &q) == PLATFORM_EXACT);
    }
    return 0;
}

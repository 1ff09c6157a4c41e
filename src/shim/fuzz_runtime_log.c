/* SPDX-License-Identifier: Apache-2.0 */
/* What an OCI runtime writes into log.json, and prints. */
#include <assert.h>

#include "base/str.h"
#include "shim/runtime_call.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[256];

    if (runtime_log_last_error((const char *)data, size, text, sizeof(text)))
        assert(*text && str_is_utf8(text, strlen(text)));
    runtime_clean_text((const char *)data, size, text, sizeof(text));
    assert(str_is_utf8(text, strlen(text)));
    return 0;
}

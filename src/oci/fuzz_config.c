/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oci_config config = {};
    struct err e = ERR_INIT;

    if (oci_config_parse((const char *)data, size, &config, &e) == 0)
        oci_config_done(&config);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The numbered files of schema/, embedded at build time: entry i brings version i to version i + 1.
 */
#pragma once

#include <stddef.h>

extern const char *const db_schema[];
extern const size_t db_schema_n;

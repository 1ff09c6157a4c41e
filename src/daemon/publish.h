/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `wherryd publish`: what shims of runtime v1 and the first shims of v2 run for each event. A
 * serialized google.protobuf.Any on standard input is handed to the daemon that serves `address`.
 */
#pragma once

#include "base/err.h"

int publish_run(const char *address, const char *topic, const char *namespace_, struct err *e);

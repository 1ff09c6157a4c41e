/* SPDX-License-Identifier: Apache-2.0 */
/* Events as text: "time namespace topic JSON" a line, or all of it as one JSON object. */
#pragma once

#include "types.pb-c.h"

#include "base/attr.h"

void event_text_print(const Pb__Types__Envelope *envelope, bool json);

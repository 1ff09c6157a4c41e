/* SPDX-License-Identifier: Apache-2.0 */
/* Names of capabilities by number (linux/capability.h). */
#pragma once

#define SPEC_CAPS_KNOWN 41
extern const char *const spec_cap_names[SPEC_CAPS_KNOWN];

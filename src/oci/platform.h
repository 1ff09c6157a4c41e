/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Platforms of images: os/architecture[/variant], as in "linux/arm64/v8". Names are normalised on
 * the way in: x86_64 is amd64, aarch64 is arm64 (and its v8 the default that is left out), armhf is
 * arm/v7, and so on, so that two platforms that mean the same compare equal.
 */
#pragma once

#include "base/err.h"

#define PLATFORM_FIELD_MAX 64

/* By value; nothing to free. Empty strings: not given. */
struct platform {
    char os[PLATFORM_FIELD_MAX];
    char architecture[PLATFORM_FIELD_MAX];
    char variant[PLATFORM_FIELD_MAX];
    char os_version[PLATFORM_FIELD_MAX];
};

/* "linux/amd64", "arm64", "linux/arm/v7"; a missing part is the host's.
 * ERR_INVALID_ARGUMENT `"x" is an invalid ...`. */
int platform_parse(const char *s, struct platform *ret, struct err *e);

/* From the fields of JSON; NULL reads as "". -EINVAL for fields that are too long or hold other
 * characters than letters, digits, '.', '_' and '-'. Normalises. */
int platform_set(struct platform *p, const char *os, const char *architecture, const char *variant);

/* Of the running machine. */
void platform_host(struct platform *ret);

/*
 * How well an image of platform `have` runs where `want` is asked for: 0 not at all, higher is
 * better, PLATFORM_EXACT the platform itself. An arm/v7 machine also runs v6 and v5, arm64 runs
 * arm/v8 down to v5, and amd64/v3 runs v2 and v1.
 */
#define PLATFORM_EXACT 100
int platform_match(const struct platform *want, const struct platform *have);

#define PLATFORM_STR_MAX (3 * PLATFORM_FIELD_MAX)
/* "linux/arm/v7". */
void platform_format(const struct platform *p, char out[PLATFORM_STR_MAX]);

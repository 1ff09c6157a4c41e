/* SPDX-License-Identifier: Apache-2.0 */
/* Time: monotonic for durations, real time for what people and peers read. */
#pragma once

#include <time.h>

#include "base/attr.h"

uint64_t clock_monotonic_ms(void);
uint64_t clock_monotonic_us(void);
struct timespec clock_realtime(void);

/* "No time" of Go peers: 0001-01-01T00:00:00Z. */
#define CLOCK_ZERO_SECONDS INT64_C(-62135596800)

#define CLOCK_RFC3339_MAX 36
/* 2026-01-02T03:04:05.678901234Z; trailing zeros of the fraction are dropped as Go does. */
void clock_rfc3339(struct timespec t, char out[CLOCK_RFC3339_MAX]);
int clock_days_of_month(int year, int month); /* month from 1 */
/* With any offset. -EINVAL for what is not RFC 3339 or not a date. */
int clock_parse_rfc3339(const char *s, struct timespec *ret);

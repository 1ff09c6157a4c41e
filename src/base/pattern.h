/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regular expressions in the syntax of RE2, as far as it can be put into POSIX extended
 * expressions: searched by glibc, whose matcher takes time in proportion to the text when there are
 * no back references, and those are refused here (as in RE2).
 *
 * Understood beyond POSIX: \d \D \w \W \s \S \b \B \A \z \Q..\E, \n \t \r \f \v \a, \x.., octal;
 * the same in classes; (?:..), (?P<name>..), a leading (?i); reluctant *? +? ??. Refused: \p{..},
 * other flags, characters beyond ASCII in classes. `.` and negated classes match one byte.
 *
 * Limits: PATTERN_MAX_LEN bytes, PATTERN_MAX_DEPTH groups, PATTERN_MAX_NODES characters and classes
 * after repetitions are written out, where what may be left out or repeated at will counts four
 * times (compiling takes time by the square of those).
 */
#pragma once

#include "base/attr.h"

#define PATTERN_MAX_LEN 4096
#define PATTERN_MAX_DEPTH 32
#define PATTERN_MAX_NODES 4096

struct pattern;

/* 0, -ENOMEM, or -EINVAL with the reason at *ret_why (a constant). */
int pattern_compile(const char *expression, struct pattern **ret, const char **ret_why);
/* Whether it is found anywhere in text. Safe in several threads at once. */
bool pattern_matches(const struct pattern *p, const char *text);
struct pattern *pattern_free(struct pattern *p);

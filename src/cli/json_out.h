/* SPDX-License-Identifier: Apache-2.0 */
/* Output for programs: JSON on stdout, one document a command. Strings that are no UTF-8 are
 * escaped first, as in tables. */
#pragma once

#include <jansson.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/strmap.h"
#include "google/protobuf/timestamp.pb-c.h"

/* NULL reads as "". */
json_t *json_text(const char *s);
/* RFC 3339; null for no time. */
json_t *json_time(const Google__Protobuf__Timestamp *t);
/* entries: a map field of a message, as of pb_strmap_get(). */
json_t *json_labels(void *const *entries, size_t n);
/* Sets a new value; takes it, also on failure. */
void json_put(json_t *object, const char *key, json_t *value);
/* Prints and takes it: indented, a newline behind. 0 or an error. */
int json_print(json_t *value, struct err *e);
/* The same in one line. */
int json_print_line(json_t *value, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one validator of names that become path components: namespaces, containers, tasks, execs,
 * sandboxes, components of topics. ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$, 1 to 76 characters.
 */
#pragma once

#include "base/err.h"

#define IDENTIFIER_MAX 76

bool identifier_is_valid(const char *s);
/* ERR_INVALID_ARGUMENT in containerd's words. */
int identifier_validate(const char *s, struct err *e);

/* Key and value together at most 4096 bytes. ERR_INVALID_ARGUMENT in containerd's words. */
#define LABEL_MAX 4096
int label_validate(const char *key, const char *value, struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/* Environment variables as -e and --env-file give them. */
#pragma once

#include "base/err.h"

#define ENV_FILE_MAX (1u << 20) /* bytes */

/* NAME=value sets, replacing an entry of that name; NAME alone takes the value from our environment
 * and adds nothing when there is none. ERR_INVALID_ARGUMENT for an empty name. */
int env_add(char ***env, const char *assignment, struct err *e);
/* One a line; empty lines and lines that start with '#' are skipped, nothing is quoted. */
int env_add_lines(char ***env, const char *text, const char *file, struct err *e);
int env_add_file(char ***env, const char *path, struct err *e);
/* Borrowed; NULL if absent. */
const char *env_get(char *const *env, const char *name);

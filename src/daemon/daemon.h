/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: makes every part in order of their needs, serves until told to end, takes everything
 * down in the opposite order. Containers and their shims are left running.
 */
#pragma once

#include "daemon/config.h"

/* Serves until SIGTERM or SIGINT. Returns 0, or an error that kept it from starting. */
int daemon_run(const struct config *config, struct err *e);

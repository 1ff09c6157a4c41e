/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `start` action of a shim's binary, containerd's runtime v2 protocol. What it expects on its
 * standard input depends on the containerd it was built from, and it does not say which that is:
 *
 *     1.2 to 2.2   the options as an Any; 1.6 refuses everything else, 1.7 and newer ignore it
 *     2.3 on       BootstrapParams, and everything else is refused
 *
 * So the options come first, and when they are refused, the parameters. The answer may be any of
 * three: an address, JSON, or a BootstrapResult. Blocks: for pool threads.
 */
#pragma once

#include "base/any.h"
#include "runtime/shim_launch.h"

/* It may answer with the address of a shim that runs already. All tries together take no longer
 * than host->load_timeout_ms. After an error a process that was started may be left. */
int shim_start(const struct shim_host *host, const char *binary, const struct bundle *b,
               const struct any *options, struct shim_endpoint *ret, struct err *e);

/* What `start` has written. Changes output. */
int shim_start_parse(char *output, size_t n, struct shim_endpoint *ret, struct err *e);

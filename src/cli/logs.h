/* SPDX-License-Identifier: Apache-2.0 */
/* The log file of a container that runs with -d (label wherry/log-path). */
#pragma once

#include "cli/container.h"

struct logs_options {
    bool follow;  /* until the container's task ends */
    int64_t tail; /* lines; -1: all */
};
/* Bytes as they are, to stdout. */
int logs_print(struct cli *cli, const Pb__Containers__Container *c, const struct logs_options *o,
               struct err *e);

/* SPDX-License-Identifier: Apache-2.0 */
/* The log file of a container that runs with -d (label wherry/log-path). */
#pragma once

#include "cli/container.h"

struct logs_options {
    bool follow;  /* until the container's task ends */
    int64_t tail; /* lines; -1: all */
};
/* Where the log of a container lies: beside the daemon's socket, in its state directory or a private
 * daemon's own. NULL: out of memory. The caller frees. */
char *logs_path(const struct cli *cli, const char *id);
/* Gives a container a log that had none: its URI for a task's streams; the caller frees. */
int logs_begin(struct cli *cli, const char *id, char **ret_uri, struct err *e);
/* Bytes as they are, to stdout. */
int logs_print(struct cli *cli, const Pb__Containers__Container *c, const struct logs_options *o,
               struct err *e);

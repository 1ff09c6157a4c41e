/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of wherryd, containerd's flags: long ones with one dash or two, value after '='
 * or as the next word. Strings are borrowed from argv. */
#pragma once

#include "base/err.h"

enum daemon_command {
    COMMAND_SERVE,
    COMMAND_CONFIG_DEFAULT,
    COMMAND_CONFIG_DUMP,
    COMMAND_PUBLISH,
    COMMAND_HELP,
    COMMAND_VERSION
};

struct daemon_args {
    enum daemon_command command;
    const char *config; /* NULL: the default path, which may be missing */
    const char *log_level;
    const char *address;
    const char *root;
    const char *state;
    const char *topic;      /* publish */
    const char *namespace_; /* publish */
};

/* INVALID_ARGUMENT with a sentence that names the word and what would do. */
int daemon_args_parse(int argc, char **argv, struct daemon_args *ret, struct err *e);
extern const char daemon_usage[];

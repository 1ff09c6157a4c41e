/* SPDX-License-Identifier: Apache-2.0 */
/* The commands of `wherry` and how they are found. One cmd_*.c file a group of them. */
#pragma once

#include "cli/cli.h"
#include "cli/flags.h"

struct command {
    const char *name;               /* "run", or noun and verb: "leases ls" */
    const char *usage;              /* behind the name: "[FLAGS] IMAGE [COMMAND [ARG...]]" */
    const char *summary;            /* one line */
    const char *detail;             /* NULL, or more lines for its help */
    const struct flag_table *flags; /* NULL: none */
    size_t options_size;
    bool options_first;        /* the first word that is no flag ends the flags */
    bool own_failures_are_125; /* the exit code is the container's otherwise */
    int min_args, max_args;    /* max -1: any number */
    /* options: of options_size bytes, zeroed, then filled. Returns the exit code, or a negative
     * value with e filled. */
    int (*run)(struct cli *cli, const void *options, int argc, char **argv, struct err *e);
};

/* Tables, one a file, ended by an entry without a name. */
extern const struct command commands_run[];        /* cmd_run.c */
extern const struct command commands_exec[];       /* cmd_exec.c: exec, attach */
extern const struct command commands_containers[]; /* cmd_containers.c: ps, inspect, logs */
extern const struct command commands_tasks[];      /* cmd_tasks.c: stop, kill, pause, unpause, rm */
extern const struct command commands_images[];     /* cmd_images.c: images, import, rmi */
extern const struct command commands_system[];     /* cmd_system.c: version, info, events */
extern const struct command commands_checkpoint[]; /* cmd_checkpoint.c */
extern const struct command commands_nouns[];      /* cmd_nouns.c: namespaces ls and so on */

/* Prints the sentence and returns the code: for failures with an exit code of their own. */
int command_fail(const struct err *e, int exit_code);

/* The whole program: global flags, the command, its exit code. */
int command_main(int argc, char **argv);

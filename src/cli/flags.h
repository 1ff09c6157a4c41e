/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags of a command line, by a table: "--name value", "--name=value", "-n value", "-nvalue",
 * "-n=value", and letters without values in one word ("-it"). "--" ends them. Values are put into
 * an options struct at the offset the table names.
 */
#pragma once

#include "base/err.h"

enum flag_kind {
    FLAG_BOOL,   /* bool; "--name=false" also works */
    FLAG_STRING, /* const char *, borrowed from argv; the last one wins */
    FLAG_LIST,   /* char **, a strv of copies in order; flags_done() frees it */
};

struct flag {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum flag_kind kind;
    size_t offset;          /* in the options struct */
    const char *value_name; /* "PATH", for the help */
    const char *help;       /* one line */
};

struct flag_table {
    const struct flag *flags;
    size_t n;
};
#define FLAGS(array)                             \
    {                                            \
        .flags = (array), .n = ARRAY_SIZE(array) \
    }

/*
 * Parses argv[0..argc). With options_first the first word that is no flag ends the flags, so that
 * what follows an image name belongs to the container. *ret_args gets the other words (borrowed
 * from argv), a vector of *ret_n_args that the caller frees.
 *
 * Returns 0, 1 when --help was asked for, or an error: one sentence that names the flag, and a near
 * match if there is one.
 */
int flags_parse(const struct flag_table *table, bool options_first, int argc, char **argv,
                void *options, char ***ret_args, int *ret_n_args, struct err *e);
/* Frees the lists in an options struct. */
void flags_done(const struct flag_table *table, void *options);

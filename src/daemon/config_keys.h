/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of the configuration as one table, which reading and writing both follow. For config*.c.
 */
#pragma once

#include "base/toml.h"
#include "daemon/config.h"

enum config_kind {
    CONFIG_STRING,
    CONFIG_STRINGS, /* replaced as a whole */
    CONFIG_PLUGINS, /* plugin ids, added to those that are there */
    CONFIG_LEVEL,   /* of the log */
    CONFIG_SHARING, /* "shared" or "isolated" */
    CONFIG_BOOL,
    CONFIG_COUNT,    /* int64_t, not negative */
    CONFIG_OOM,      /* int64_t, -1000 to 1000 */
    CONFIG_ID,       /* uint32_t */
    CONFIG_BYTES,    /* uint64_t, the size of a message */
    CONFIG_FRACTION, /* double, 0 to 0.5 */
    CONFIG_DURATION, /* uint64_t milliseconds, written as "1m30s" */
};

struct config_key {
    const char *table; /* "" at the top, "grpc", or the id of a plugin */
    const char *name;
    enum config_kind kind;
    size_t offset; /* in struct config */
};

/* Grouped by table. */
extern const struct config_key config_keys[];
extern const size_t config_n_keys;

/* Whether a table of config_keys is one of [plugins]. */
bool config_is_plugin(const char *table);

/* Takes over every key of one table of a file. Unknown ones become warnings. */
int config_read_table(struct config *c, const char *path, const char *table,
                      const struct toml_value *values, struct err *e);
/* A sentence into c->warnings; beyond a limit they are dropped. */
int config_warn(struct config *c, struct err *e, const char *format, ...) _printf_(3, 4);
/* Adds s to a list unless it is there. */
int config_add(char ***list, const char *s, struct err *e);

/* Go's notation of durations: "5s", "1h2m3.5s", "100ms", "0". Rounded up to milliseconds. -EINVAL,
 * -ERANGE. */
int config_parse_duration(const char *s, uint64_t *ret_ms);

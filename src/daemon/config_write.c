/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/str.h"
#include "base/toml.h"
#include "daemon/config_keys.h"

#define WRITTEN_MAX (4 * CONFIG_FILE_MAX)

static int write_strings(struct buf *b, char *const *list)
{
    int r = buf_append_str(b, "[");

    for (char *const *s = list; r >= 0 && s && *s; s++) {
        if (s > list)
            r = buf_append_str(b, ", ");
        if (r >= 0)
            r = toml_write_string(b, *s);
    }
    return r < 0 ? r : buf_append_str(b, "]");
}

static int write_duration(struct buf *b, uint64_t ms)
{
    if (ms % 1000 == 0)
        return buf_printf(b, "\"%jus\"", (uintmax_t)(ms / 1000));
    return buf_printf(b, "\"%jums\"", (uintmax_t)ms);
}

/* So many digits that the same double is read again, with a point so that it is read as one. */
static int write_fraction(struct buf *b, double v)
{
    char text[32];
    int n = 0;

    for (int digits = 1; digits <= 17; digits++) {
        n = snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    bool integral = strspn(text, "0123456789") == (size_t)n;
    return buf_printf(b, "%s%s", text, integral ? ".0" : "");
}

static int write_value(struct buf *b, const struct config *c, const struct config_key *key)
{
    const void *field = (const char *)c + key->offset;

    switch (key->kind) {
    case CONFIG_STRING:
    case CONFIG_LEVEL:
    case CONFIG_SHARING:
        return toml_write_string(b, *(char *const *)field);
    case CONFIG_STRINGS:
    case CONFIG_PLUGINS:
        return write_strings(b, *(char **const *)field);
    case CONFIG_BOOL:
        return buf_append_str(b, *(const bool *)field ? "true" : "false");
    case CONFIG_COUNT:
    case CONFIG_OOM:
        return buf_printf(b, "%jd", (intmax_t) * (const int64_t *)field);
    case CONFIG_ID:
        return buf_printf(b, "%u", *(const uint32_t *)field);
    case CONFIG_BYTES:
        return buf_printf(b, "%ju", (uintmax_t) * (const uint64_t *)field);
    case CONFIG_FRACTION:
        return write_fraction(b, *(const double *)field);
    case CONFIG_DURATION:
        return write_duration(b, *(const uint64_t *)field);
    }
    return 0;
}

static int write_header(struct buf *b, const char *table, bool first_plugin)
{
    if (!config_is_plugin(table))
        return buf_printf(b, "\n[%s]\n", table);
    return buf_printf(b, "%s\n  [plugins.\"%s\"]\n", first_plugin ? "\n[plugins]\n" : "", table);
}

static int write_key(struct buf *b, const struct config *c, const struct config_key *key)
{
    const char *indent = !*key->table ? "" : config_is_plugin(key->table) ? "    " : "  ";
    const char *quote = strchr(key->name, '.') ? "\"" : "";
    int r = buf_printf(b, "%s%s%s%s = ", indent, quote, key->name, quote);

    if (r >= 0)
        r = write_value(b, c, key);
    return r < 0 ? r : buf_append_str(b, "\n");
}

int config_write(const struct config *c, int fd)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(WRITTEN_MAX);
    const char *table = "";
    bool in_plugins = false;
    int r = buf_append_str(&b, "version = 2\n");

    /* Their keys are among the others here. Imported again, they would win over flags. */
    for (char *const *import = c->imports; r >= 0 && import && *import; import++) {
        r = buf_append_str(&b, "# with ");
        if (r >= 0)
            r = toml_write_string(&b, *import);
        if (r >= 0)
            r = buf_append_str(&b, "\n");
    }
    for (size_t i = 0; r >= 0 && i < config_n_keys; i++) {
        const struct config_key *key = &config_keys[i];
        if (!str_eq(key->table, table)) {
            table = key->table;
            r = write_header(&b, table, config_is_plugin(table) && !in_plugins);
            in_plugins = config_is_plugin(table);
        }
        if (r >= 0)
            r = write_key(&b, c, key);
    }
    return r < 0 ? r : fs_write_all(fd, buf_head(&b), b.len);
}

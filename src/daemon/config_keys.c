/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config_keys.h"

#include <stdarg.h>

#include "base/log.h"
#include "base/str.h"

#define WARNINGS_MAX 256
#define MESSAGE_BYTES_DEFAULT (UINT64_C(16) << 20)
#define MESSAGE_BYTES_MAX INT32_MAX

/* clang-format off */
#define KEY(table, name, kind, field) {table, name, kind, offsetof(struct config, field)}

const struct config_key config_keys[] = {
    KEY("", "root", CONFIG_STRING, root),
    KEY("", "state", CONFIG_STRING, state),
    KEY("", "oom_score", CONFIG_OOM, oom_score),
    KEY("", "disabled_plugins", CONFIG_PLUGINS, disabled_plugins),
    KEY("", "required_plugins", CONFIG_PLUGINS, required_plugins),
    KEY("grpc", "address", CONFIG_STRING, grpc_address),
    KEY("grpc", "uid", CONFIG_ID, grpc_uid),
    KEY("grpc", "gid", CONFIG_ID, grpc_gid),
    KEY("grpc", "max_recv_message_size", CONFIG_BYTES, max_recv_message_bytes),
    KEY("grpc", "max_send_message_size", CONFIG_BYTES, max_send_message_bytes),
    KEY("ttrpc", "address", CONFIG_STRING, ttrpc_address),
    KEY("ttrpc", "uid", CONFIG_ID, ttrpc_uid),
    KEY("ttrpc", "gid", CONFIG_ID, ttrpc_gid),
    KEY("debug", "level", CONFIG_LEVEL, log_level),
    KEY("timeouts", "io.containerd.timeout.shim.cleanup", CONFIG_DURATION, shim_cleanup_timeout_ms),
    KEY("timeouts", "io.containerd.timeout.shim.load", CONFIG_DURATION, shim_load_timeout_ms),
    KEY("timeouts", "io.containerd.timeout.shim.shutdown", CONFIG_DURATION, shim_shutdown_timeout_ms),
    KEY("timeouts", "io.containerd.timeout.task.state", CONFIG_DURATION, task_state_timeout_ms),
    KEY("io.containerd.gc.v1.scheduler", "pause_threshold", CONFIG_FRACTION, gc_pause_threshold),
    KEY("io.containerd.gc.v1.scheduler", "deletion_threshold", CONFIG_COUNT, gc_deletion_threshold),
    KEY("io.containerd.gc.v1.scheduler", "mutation_threshold", CONFIG_COUNT, gc_mutation_threshold),
    KEY("io.containerd.gc.v1.scheduler", "schedule_delay", CONFIG_DURATION, gc_schedule_delay_ms),
    KEY("io.containerd.gc.v1.scheduler", "startup_delay", CONFIG_DURATION, gc_startup_delay_ms),
    KEY("io.containerd.metadata.v1.bolt", "content_sharing_policy", CONFIG_SHARING, content_sharing_policy),
    KEY("io.containerd.runtime.v1.linux", "shim", CONFIG_STRING, linux_shim),
    KEY("io.containerd.runtime.v1.linux", "runtime", CONFIG_STRING, linux_runtime),
    KEY("io.containerd.runtime.v1.linux", "runtime_root", CONFIG_STRING, linux_runtime_root),
    KEY("io.containerd.runtime.v1.linux", "no_shim", CONFIG_BOOL, linux_no_shim),
    KEY("io.containerd.runtime.v1.linux", "shim_debug", CONFIG_BOOL, linux_shim_debug),
    KEY("io.containerd.runtime.v2.task", "platforms", CONFIG_STRINGS, platforms),
    KEY("io.containerd.service.v1.diff-service", "default", CONFIG_STRINGS, differs),
    KEY("io.containerd.snapshotter.v1.native", "root_path", CONFIG_STRING, native_root_path),
    KEY("io.containerd.snapshotter.v1.overlayfs", "root_path", CONFIG_STRING, overlay_root_path),
    KEY("io.containerd.snapshotter.v1.overlayfs", "upperdir_label", CONFIG_BOOL, overlay_upperdir_label),
    KEY("io.containerd.snapshotter.v1.overlayfs", "sync_remove", CONFIG_BOOL, overlay_sync_remove),
    KEY("io.containerd.snapshotter.v1.overlayfs", "mount_options", CONFIG_STRINGS, overlay_mount_options),
    KEY("io.wherry.runtime.v1", "oci_runtime", CONFIG_STRING, oci_runtime),
    KEY("io.wherry.runtime.v1", "shim", CONFIG_STRING, shim),
    KEY("io.wherry.runtime.v1", "shim_socket_dir", CONFIG_STRING, shim_socket_dir),
};
/* clang-format on */
const size_t config_n_keys = ARRAY_SIZE(config_keys);

/* One value of a file on its way into the struct. */
struct reading {
    struct config *c;
    const char *path;
    const struct config_key *key;
    const struct toml_value *value;
    struct err *e;
};

bool config_is_plugin(const char *table)
{
    return str_after_prefix(table, "io.") != NULL;
}

int config_warn(struct config *c, struct err *e, const char *format, ...)
{
    va_list args;

    if (strv_len(c->warnings) >= WARNINGS_MAX)
        return 0;
    va_start(args, format);
    _free_ char *s = str_vprintf(format, args);
    va_end(args);
    return s && strv_push(&c->warnings, s) == 0 ? 0 : err_oom(e);
}

int config_add(char ***list, const char *s, struct err *e)
{
    for (char **p = *list; p && *p; p++)
        if (str_eq(*p, s))
            return 0;
    return strv_push(list, s) < 0 ? err_oom(e) : 0;
}

static void *field_of(const struct reading *r)
{
    return (char *)r->c + r->key->offset;
}

static _printf_(2, 3) int refuse(const struct reading *r, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _free_ char *why = str_vprintf(format, args);
    va_end(args);
    if (!why)
        return err_oom(r->e);
    return err_set(r->e, ERR_INVALID_ARGUMENT, "%s:%u: %s %s", r->path, r->value->line,
                   r->key->name, why);
}

static int expect(const struct reading *r, enum toml_type type)
{
    if (r->value->type == type)
        return 0;
    return refuse(r, "must be %s, not %s", toml_type_name(type), toml_type_name(r->value->type));
}

/* A string without NUL, borrowed. */
static int string_of(const struct reading *r, const struct toml_value *v, const char **ret)
{
    if (v->type != TOML_STRING)
        return refuse(r, "must %s, not %s", v == r->value ? "be a string" : "hold strings only",
                      toml_type_name(v->type));
    if (strlen(v->string.bytes) != v->string.len)
        return refuse(r, "holds a NUL character");
    *ret = v->string.bytes;
    return 0;
}

static int read_string(const struct reading *r)
{
    char **field = field_of(r);
    const char *s;

    int x = string_of(r, r->value, &s);
    if (x < 0)
        return x;
    if (r->key->kind == CONFIG_LEVEL) {
        enum log_level level;
        if (!*s)
            s = "info";
        if (log_level_parse(s, &level) < 0)
            return refuse(
                r, "\"%.64s\" is not one of trace, debug, info, warn, error, fatal, panic", s);
    }
    if (r->key->kind == CONFIG_SHARING && !str_eq(s, "shared") && !str_eq(s, "isolated"))
        return refuse(r, "\"%.64s\" is neither \"shared\" nor \"isolated\"", s);
    char *copy = strdup(s);
    if (!copy)
        return err_oom(r->e);
    free(*field);
    *field = copy;
    return 0;
}

/* "io.containerd.<type>.<version>.<name>", as containerd demands from version 2 on. */
static bool is_plugin_id(const char *s)
{
    size_t dots = 0;

    for (const char *p = s; *p; p++)
        dots += *p == '.';
    return dots >= 3 &&
           (str_after_prefix(s, "io.containerd.") || str_after_prefix(s, "io.wherry."));
}

static int read_strings(const struct reading *r)
{
    _cleanup_(strv_freep) char **list = calloc(1, sizeof(char *));
    char ***field = field_of(r);
    const char *s;

    int x = expect(r, TOML_ARRAY);
    if (x < 0)
        return x;
    if (!list)
        return err_oom(r->e);
    for (size_t i = 0; i < r->value->array.n; i++) {
        x = string_of(r, r->value->array.items[i], &s);
        if (x < 0)
            return x;
        if (r->key->kind == CONFIG_STRINGS) {
            if (strv_push(&list, s) < 0)
                return err_oom(r->e);
            continue;
        }
        if (!is_plugin_id(s))
            return refuse(r,
                          "names \"%.128s\"; a plugin's full id is needed, such as "
                          "io.containerd.snapshotter.v1.native",
                          s);
        x = config_add(field, s, r->e);
        if (x < 0)
            return x;
    }
    if (r->key->kind == CONFIG_STRINGS) {
        strv_free(*field);
        *field = TAKE(list);
    }
    return 0;
}

static int read_integer(const struct reading *r)
{
    int64_t v = r->value->integer, least = 0, most = INT64_MAX;
    void *field = field_of(r);

    int x = expect(r, TOML_INTEGER);
    if (x < 0)
        return x;
    if (r->key->kind == CONFIG_OOM) {
        least = -1000;
        most = 1000;
    } else if (r->key->kind == CONFIG_ID) {
        most = UINT32_MAX;
    } else if (r->key->kind == CONFIG_BYTES) {
        most = MESSAGE_BYTES_MAX;
        /* As in containerd, nothing sensible means the default. */
        v = v <= 0 ? (int64_t)MESSAGE_BYTES_DEFAULT : v;
    }
    if (v < least || v > most)
        return refuse(r, "must be between %jd and %jd, not %jd", (intmax_t)least, (intmax_t)most,
                      (intmax_t)v);
    if (r->key->kind == CONFIG_ID)
        *(uint32_t *)field = (uint32_t)v;
    else if (r->key->kind == CONFIG_BYTES)
        *(uint64_t *)field = (uint64_t)v;
    else
        *(int64_t *)field = v;
    return 0;
}

static int read_fraction(const struct reading *r)
{
    double v = r->value->type == TOML_INTEGER ? (double)r->value->integer : r->value->floating;

    if (r->value->type != TOML_INTEGER) {
        int x = expect(r, TOML_FLOAT);
        if (x < 0)
            return x;
    }
    if (!(v >= 0))
        return refuse(r, "must not be negative");
    /* More than half of the time would not be a pause; containerd takes it as half, too. */
    *(double *)field_of(r) = MIN_OF(v, 0.5);
    return 0;
}

int config_parse_duration(const char *s, uint64_t *ret_ms)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"ns", 1},       {"us", 1000},      {"µs", 1000},       {"μs", 1000},
                 {"ms", 1000000}, {"s", 1000000000}, {"m", 60000000000}, {"h", 3600000000000}};
    uint64_t total = 0;

    s += *s == '+';
    if (str_eq(s, "0")) {
        *ret_ms = 0;
        return 0;
    }
    if (!*s)
        return -EINVAL;
    while (*s) {
        uint64_t whole = 0, fraction = 0, scale = 1, part;
        const char *start = s;
        for (; *s >= '0' && *s <= '9'; s++)
            if (__builtin_mul_overflow(whole, 10, &whole) ||
                __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
                return -ERANGE;
        size_t digits = (size_t)(s - start);
        if (*s == '.') {
            for (s++; *s >= '0' && *s <= '9'; s++, digits++) {
                /* Digits behind the sixth are less than the rounding. */
                if (scale < 1000000) {
                    scale *= 10;
                    fraction = fraction * 10 + (uint64_t)(*s - '0');
                }
            }
        }
        size_t n = 0, unit = 0;
        while (s[n] && s[n] != '.' && (s[n] < '0' || s[n] > '9'))
            n++;
        while (unit < ARRAY_SIZE(units) &&
               (strlen(units[unit].name) != n || memcmp(units[unit].name, s, n) != 0))
            unit++;
        if (digits == 0 || unit == ARRAY_SIZE(units))
            return -EINVAL;
        s += n;
        if (__builtin_mul_overflow(whole, units[unit].ns, &part) ||
            __builtin_add_overflow(part, fraction * units[unit].ns / scale, &part) ||
            __builtin_add_overflow(total, part, &total))
            return -ERANGE;
    }
    if (total > INT64_MAX)
        return -ERANGE;
    *ret_ms = total / 1000000 + (total % 1000000 != 0);
    return 0;
}

static int read_duration(const struct reading *r)
{
    const char *s;

    int x = string_of(r, r->value, &s);
    if (x < 0)
        return x;
    x = config_parse_duration(s, field_of(r));
    if (x == -ERANGE)
        return refuse(r, "\"%.64s\" is too long", s);
    if (x < 0)
        return refuse(r, "\"%.64s\" is not a duration such as \"5s\" or \"100ms\"", s);
    return 0;
}

static int read_bool(const struct reading *r)
{
    int x = expect(r, TOML_BOOL);
    if (x < 0)
        return x;
    *(bool *)field_of(r) = r->value->boolean;
    return 0;
}

static int read_value(const struct reading *r)
{
    switch (r->key->kind) {
    case CONFIG_STRING:
    case CONFIG_LEVEL:
    case CONFIG_SHARING:
        return read_string(r);
    case CONFIG_STRINGS:
    case CONFIG_PLUGINS:
        return read_strings(r);
    case CONFIG_BOOL:
        return read_bool(r);
    case CONFIG_COUNT:
    case CONFIG_OOM:
    case CONFIG_ID:
    case CONFIG_BYTES:
        return read_integer(r);
    case CONFIG_FRACTION:
        return read_fraction(r);
    case CONFIG_DURATION:
        return read_duration(r);
    }
    return 0;
}

static const struct config_key *find_key(const char *table, const char *name)
{
    for (size_t i = 0; i < config_n_keys; i++)
        if (str_eq(config_keys[i].table, table) && str_eq(config_keys[i].name, name))
            return &config_keys[i];
    return NULL;
}

/* What the sections are made of is read elsewhere. */
static bool is_structure(const char *table, const char *name)
{
    static const char *const names[] = {"version", "imports", "plugins", "grpc",
                                        "ttrpc",   "debug",   "timeouts"};

    for (size_t i = 0; !*table && i < ARRAY_SIZE(names); i++)
        if (str_eq(name, names[i]))
            return true;
    return false;
}

int config_read_table(struct config *c, const char *path, const char *table,
                      const struct toml_value *values, struct err *e)
{
    for (size_t i = 0; i < values->table.n; i++) {
        const struct toml_member *m = &values->table.members[i];
        const struct reading r = {
            .c = c, .path = path, .key = find_key(table, m->key), .value = m->value, .e = e};
        int x = 0;
        if (r.key)
            x = read_value(&r);
        else if (!is_structure(table, m->key))
            x = config_warn(c, e, "%s:%u: unknown key %.128s%s%s%s is ignored", path, m->line,
                            m->key, *table ? " in [" : "", table, *table ? "]" : "");
        if (x < 0)
            return x;
    }
    return 0;
}

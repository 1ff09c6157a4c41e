/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/volume.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/str.h"

static const char *const propagations[] = {"private", "rprivate", "shared",
                                           "rshared", "slave",    "rslave"};

static bool is_propagation(const char *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(propagations); i++) {
        if (str_eq(s, propagations[i]))
            return true;
    }
    return false;
}

/* *ret: the clean path. */
static int check_destination(const char *flag, const char *s, char **ret, struct err *e)
{
    _free_ char *clean = NULL;
    const char *below;

    if (str_empty(s) || s[0] != '/')
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "%s: the destination \"%s\" is no absolute path in the container", flag,
                       str_or_empty(s));
    clean = fs_clean_path(s);
    if (!clean)
        return err_oom(e);
    for (const char *at = s; (at = strstr(at, "/..")); at++) {
        if (at[3] == '/' || at[3] == '\0')
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "%s: the destination \"%s\" may not hold \"..\"", flag, s);
    }
    if (str_eq(clean, "/"))
        return err_set(e, ERR_INVALID_ARGUMENT, "%s: nothing can be mounted on \"/\"", flag);
    below = str_after_prefix(clean, "/proc");
    if (below && (*below == '\0' || *below == '/'))
        return err_set(e, ERR_INVALID_ARGUMENT, "%s: nothing can be mounted on /proc or below it",
                       flag);
    *ret = TAKE(clean);
    return 0;
}

static int check_source(const char *flag, const char *s, char **ret, struct err *e)
{
    char real[PATH_MAX];
    struct stat st;

    if (!str_empty(s) && s[0] != '/' && s[0] != '.')
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "%s: \"%s\" is no path; there are no named volumes, give a directory of the "
                       "host like /srv/%s or ./%s",
                       flag, s, s, s);
    if (str_empty(s))
        return err_set(e, ERR_INVALID_ARGUMENT, "%s: there is no source", flag);
    if (stat(s, &st) < 0)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_INVALID_ARGUMENT, "%s: %s: %s",
                       flag, s, err_strerror(errno));
    if (s[0] == '/') {
        *ret = strdup(s);
    } else {
        if (!realpath(s, real))
            return err_errno(e, -errno, "%s: %s", flag, s);
        *ret = strdup(real);
    }
    return *ret ? 0 : err_oom(e);
}

static int add_bind(struct mount_list *ret, const char *source, const char *destination,
                    const char *propagation, bool read_only, struct err *e)
{
    char *options[] = {(char *)"rbind", (char *)propagation, (char *)(read_only ? "ro" : "rw"),
                       NULL};

    if (mount_list_add(ret, "bind", source, destination, options) < 0)
        return err_oom(e);
    return 0;
}

int volume_parse(const char *s, struct mount_list *ret, struct err *e)
{
    _free_ char *copy = strdup(s), *source = NULL, *destination = NULL;
    const char *propagation = "rprivate";
    char *colon, *options = NULL, *option, *save = NULL;
    bool read_only = false;
    int r;

    if (!copy)
        return err_oom(e);
    colon = strchr(copy, ':');
    if (!colon)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "-v %s: write SOURCE:DESTINATION, with :ro behind it to make it read-only",
                       s);
    *colon = '\0';
    options = strchr(colon + 1, ':');
    if (options)
        *options++ = '\0';
    r = check_source("-v", copy, &source, e);
    if (r == 0)
        r = check_destination("-v", colon + 1, &destination, e);
    if (r < 0)
        return r;
    for (option = options ? strtok_r(options, ",", &save) : NULL; option;
         option = strtok_r(NULL, ",", &save)) {
        if (str_eq(option, "ro"))
            read_only = true;
        else if (is_propagation(option))
            propagation = option;
        else if (!str_eq(option, "rw"))
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "-v %s: unknown option \"%s\"; there are ro, rw and rprivate, rslave, "
                           "rshared",
                           s, option);
    }
    return add_bind(ret, source, destination, propagation, read_only, e);
}

struct mount_flag {
    const char *type, *source, *destination, *propagation, *size, *mode;
    bool read_only;
};

static int take_field(struct mount_flag *m, const char *key, const char *value, struct err *e)
{
    const struct {
        const char *key;
        const char **target;
    } fields[] = {
        {"type", &m->type},       {"source", &m->source},
        {"src", &m->source},      {"destination", &m->destination},
        {"dst", &m->destination}, {"target", &m->destination},
        {"tmpfs-size", &m->size}, {"bind-propagation", &m->propagation},
        {"tmpfs-mode", &m->mode},
    };

    if (str_eq(key, "readonly") || str_eq(key, "ro")) {
        m->read_only = !value || !str_eq(value, "false");
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (!str_eq(key, fields[i].key))
            continue;
        if (str_empty(value))
            return err_set(e, ERR_INVALID_ARGUMENT, "--mount: %s needs a value: %s=VALUE", key,
                           key);
        *fields[i].target = value;
        return 0;
    }
    return err_set(e, ERR_INVALID_ARGUMENT,
                   "--mount: unknown field \"%s\"; there are type, source, destination, readonly, "
                   "bind-propagation, tmpfs-size and tmpfs-mode",
                   key);
}

static int add_tmpfs(const struct mount_flag *m, const char *destination, struct mount_list *ret,
                     struct err *e)
{
    char size[40], mode[24];
    char *options[8] = {(char *)"nosuid", (char *)"nodev", (char *)"noexec"};
    size_t n = 3;
    uint64_t bytes;

    if (m->source)
        return err_set(e, ERR_INVALID_ARGUMENT, "--mount: type=tmpfs has no source");
    if (m->size) {
        if (str_to_size(m->size, &bytes) < 0 || bytes == 0)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "--mount: tmpfs-size=%s is no size; write 64m, 1g and so on", m->size);
        snprintf(size, sizeof(size), "size=%llu", (unsigned long long)bytes);
        options[n++] = size;
    }
    if (m->mode) {
        if (strspn(m->mode, "01234567") != strlen(m->mode) || strlen(m->mode) > 5)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "--mount: tmpfs-mode=%s is no mode; write 1777 and so on", m->mode);
        snprintf(mode, sizeof(mode), "mode=%s", m->mode);
        options[n++] = mode;
    }
    if (m->read_only)
        options[n++] = (char *)"ro";
    return mount_list_add(ret, "tmpfs", "tmpfs", destination, options) < 0 ? err_oom(e) : 0;
}

int volume_parse_mount(const char *s, struct mount_list *ret, struct err *e)
{
    _free_ char *copy = strdup(s), *source = NULL, *destination = NULL;
    struct mount_flag m = {.type = "bind", .propagation = "rprivate"};
    char *field, *save = NULL;
    int r = copy ? 0 : err_oom(e);

    for (field = copy ? strtok_r(copy, ",", &save) : NULL; field && r == 0;
         field = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(field, '=');
        if (equals)
            *equals = '\0';
        r = take_field(&m, field, equals ? equals + 1 : NULL, e);
    }
    if (r == 0)
        r = check_destination("--mount", m.destination, &destination, e);
    if (r < 0)
        return r;
    if (str_eq(m.type, "tmpfs"))
        return add_tmpfs(&m, destination, ret, e);
    if (!str_eq(m.type, "bind"))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "--mount: unknown type \"%s\"; there are bind and tmpfs", m.type);
    if (!is_propagation(m.propagation))
        return err_set(e, ERR_INVALID_ARGUMENT, "--mount: unknown bind-propagation \"%s\"",
                       m.propagation);
    r = check_source("--mount", m.source, &source, e);
    return r < 0 ? r : add_bind(ret, source, destination, m.propagation, m.read_only, e);
}

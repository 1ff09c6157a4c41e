/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/options.h"

#include <ctype.h>
#include <fcntl.h>
#include <jansson.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "base/toml.h"
#include "linux.runc.pb-c.h"
#include "runc.v1.pb-c.h"
#include "runtimeoptions.v1.pb-c.h"

#define OPTIONS_FILE_MAX 65536

enum kind { BOOL, U32, STRING };

/* Names of the JSON members are those of the protobuf fields. */
static const struct member {
    const char *name;
    enum kind kind;
    size_t at;
} members[] = {
    {"no_pivot_root", BOOL, offsetof(struct options, no_pivot_root)},
    {"no_new_keyring", BOOL, offsetof(struct options, no_new_keyring)},
    {"systemd_cgroup", BOOL, offsetof(struct options, systemd_cgroup)},
    {"io_uid", U32, offsetof(struct options, io_uid)},
    {"io_gid", U32, offsetof(struct options, io_gid)},
    {"binary_name", STRING, offsetof(struct options, binary_name)},
    {"root", STRING, offsetof(struct options, root)},
    {"shim_cgroup", STRING, offsetof(struct options, shim_cgroup)},
    {"criu_path", STRING, offsetof(struct options, criu_path)},
    {"criu_image_path", STRING, offsetof(struct options, criu_image_path)},
    {"criu_work_path", STRING, offsetof(struct options, criu_work_path)},
};

void options_done(struct options *o)
{
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        if (members[i].kind == STRING)
            free(*(char **)((char *)o + members[i].at));
    *o = (struct options){};
}

/* protobuf's absent string is "", ours is NULL. */
static int take_string(char **to, const char *from)
{
    if (str_empty(from))
        return 0;
    *to = strdup(from);
    return *to ? 0 : -ENOMEM;
}

static int decode_runc(const ProtobufCBinaryData *value, struct options *o, struct err *e)
{
    Pb__Runc__Options *m = pb__runc__options__unpack(NULL, value->len, value->data);
    if (!m)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "runtime options do not parse as containerd.runc.v1.Options: invalid "
                       "argument");
    o->no_pivot_root = m->no_pivot_root;
    o->no_new_keyring = m->no_new_keyring;
    o->systemd_cgroup = m->systemd_cgroup;
    o->io_uid = m->io_uid;
    o->io_gid = m->io_gid;
    int r = take_string(&o->binary_name, m->binary_name);
    if (r == 0)
        r = take_string(&o->root, m->root);
    if (r == 0)
        r = take_string(&o->shim_cgroup, m->shim_cgroup);
    if (r == 0)
        r = take_string(&o->criu_path, m->criu_path);
    if (r == 0)
        r = take_string(&o->criu_image_path, m->criu_image_path);
    if (r == 0)
        r = take_string(&o->criu_work_path, m->criu_work_path);
    pb__runc__options__free_unpacked(m, NULL);
    return r < 0 ? err_oom(e) : 0;
}

static int decode_v1(const ProtobufCBinaryData *value, struct options *o, struct err *e)
{
    Pb__Linuxrunc__CreateOptions *m =
        pb__linuxrunc__create_options__unpack(NULL, value->len, value->data);
    if (!m)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "task options do not parse as containerd.linux.runc.CreateOptions: invalid "
                       "argument");
    o->no_pivot_root = m->no_pivot_root;
    o->no_new_keyring = m->no_new_keyring;
    o->io_uid = m->io_uid;
    o->io_gid = m->io_gid;
    int r = take_string(&o->shim_cgroup, m->shim_cgroup);
    if (r == 0)
        r = take_string(&o->criu_image_path, m->criu_image_path);
    if (r == 0)
        r = take_string(&o->criu_work_path, m->criu_work_path);
    pb__linuxrunc__create_options__free_unpacked(m, NULL);
    return r < 0 ? err_oom(e) : 0;
}

/* Go's name of a field, and TOML's: SystemdCgroup for systemd_cgroup. */
static bool is_name_of(const char *key, const struct member *m)
{
    const char *name = m->name;

    for (; *key && *name; key++, name++) {
        if (*name == '_')
            name++;
        if (tolower((unsigned char)*key) != *name)
            return false;
    }
    return !*key && !*name;
}

static int take_value(struct options *o, const struct member *m, const struct toml_value *v,
                      struct err *e)
{
    static const enum toml_type types[] = {
        [BOOL] = TOML_BOOL, [U32] = TOML_INTEGER, [STRING] = TOML_STRING};
    void *at = (char *)o + m->at;

    if (v->type != types[m->kind] ||
        (m->kind == U32 && (v->integer < 0 || v->integer > UINT32_MAX)))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "runtime option %s on line %u has a value that it cannot have: invalid "
                       "argument",
                       m->name, v->line);
    if (m->kind == BOOL)
        *(bool *)at = v->boolean;
    else if (m->kind == U32)
        *(uint32_t *)at = (uint32_t)v->integer;
    else if (!*(char **)at && take_string(at, v->string.bytes) < 0)
        return err_oom(e);
    return 0;
}

/* The table of options of a runtime in the configuration of containerd's CRI plugin. */
static int decode_table(const ProtobufCBinaryData *text, struct options *o, struct err *e)
{
    _cleanup_(toml_freep) struct toml_value *root = NULL;

    if (toml_parse((const char *)text->data, text->len, "runtime options", &root, e) < 0)
        return ERR_RETURN;
    for (size_t i = 0; i < root->table.n; i++) {
        const struct toml_member *given = &root->table.members[i];
        size_t at = 0;
        while (at < ARRAY_SIZE(members) && !is_name_of(given->key, &members[at]))
            at++;
        if (at == ARRAY_SIZE(members))
            log_warn("runtime option %.100s is not known", given->key);
        else if (take_value(o, &members[at], given->value, e) < 0)
            return ERR_RETURN;
    }
    return 0;
}

static int decode_cri(const ProtobufCBinaryData *value, struct options *o, struct err *e)
{
    Pb__Runtimeoptions__Options *m =
        pb__runtimeoptions__options__unpack(NULL, value->len, value->data);
    int r = 0;

    if (!m)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "runtime options do not parse as runtimeoptions.v1.Options: invalid "
                       "argument");
    if (!str_empty(m->config_path))
        r = err_set(e, ERR_INVALID_ARGUMENT,
                    "runtime options are not read from file %.200s, only from the table that "
                    "names it: invalid argument",
                    m->config_path);
    else if (m->config_body.len > 0)
        r = decode_table(&m->config_body, o, e);
    pb__runtimeoptions__options__free_unpacked(m, NULL);
    return r;
}

int options_decode(const Google__Protobuf__Any *any, struct options *ret, struct err *e)
{
    _cleanup_(options_done) struct options o = {};

    if (any && !str_empty(any->type_url)) {
        const char *slash = strrchr(any->type_url, '/');
        const char *name = slash ? slash + 1 : any->type_url;
        int r;
        if (str_eq(name, "containerd.runc.v1.Options"))
            r = decode_runc(&any->value, &o, e);
        else if (str_eq(name, "containerd.linux.runc.CreateOptions"))
            r = decode_v1(&any->value, &o, e);
        else if (str_eq(name, "runtimeoptions.v1.Options"))
            r = decode_cri(&any->value, &o, e);
        else
            r = err_set(e, ERR_INVALID_ARGUMENT,
                        "runtime options of type \"%.200s\" are not understood, only "
                        "containerd.runc.v1.Options: invalid argument",
                        name);
        if (r < 0)
            return r;
    }
    *ret = o;
    o = (struct options){};
    return 0;
}

static int add_member(json_t *to, const struct member *m, const struct options *o)
{
    const void *at = (const char *)o + m->at;
    const char *text;

    switch (m->kind) {
    case BOOL:
        return *(const bool *)at ? json_object_set_new(to, m->name, json_true()) : 0;
    case U32:
        return *(const uint32_t *)at
                   ? json_object_set_new(to, m->name, json_integer(*(const uint32_t *)at))
                   : 0;
    case STRING:
        text = *(char *const *)at;
        return text ? json_object_set_new(to, m->name, json_string(text)) : 0;
    }
    return 0;
}

static int write_file(const char *bundle, const char *name, const char *text)
{
    _free_ char *path = fs_join(bundle, name);

    if (!path)
        return -ENOMEM;
    return fs_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600, false);
}

int options_save(const struct options *o, const char *bundle, const char *runtime)
{
    _free_ char *text = NULL;
    json_t *root = json_object();
    int r = 0;

    for (size_t i = 0; root && i < ARRAY_SIZE(members) && r == 0; i++)
        r = add_member(root, &members[i], o);
    if (root && r == 0)
        text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return -ENOMEM;
    r = write_file(bundle, "options.json", text);
    return r < 0 ? r : write_file(bundle, "runtime", runtime);
}

static int read_member(const json_t *root, const struct member *m, struct options *o)
{
    const json_t *value = json_object_get(root, m->name);
    void *at = (char *)o + m->at;

    switch (m->kind) {
    case BOOL:
        *(bool *)at = json_is_true(value);
        return 0;
    case U32:
        *(uint32_t *)at = (uint32_t)json_integer_value(value);
        return 0;
    case STRING:
        return take_string(at, json_string_value(value));
    }
    return 0;
}

int options_load(const char *bundle, struct options *ret, char **ret_runtime)
{
    _free_ char *options_path = fs_join(bundle, "options.json");
    _free_ char *runtime_path = fs_join(bundle, "runtime");
    _free_ char *text = NULL, *runtime = NULL;
    _cleanup_(options_done) struct options o = {};
    size_t n;
    int r = 0;

    if (!options_path || !runtime_path)
        return -ENOMEM;
    if (fs_read_file(AT_FDCWD, options_path, OPTIONS_FILE_MAX, &text, &n) >= 0) {
        json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
        for (size_t i = 0; root && i < ARRAY_SIZE(members) && r == 0; i++)
            r = read_member(root, &members[i], &o);
        json_decref(root);
        if (r < 0)
            return r;
    }
    if (fs_read_file(AT_FDCWD, runtime_path, OPTIONS_FILE_MAX, &runtime, &n) >= 0 && n > 0) {
        runtime[strcspn(runtime, "\n")] = '\0';
        *ret_runtime = *runtime ? TAKE(runtime) : NULL;
    } else {
        *ret_runtime = NULL;
    }
    *ret = o;
    o = (struct options){};
    return 0;
}

char *options_runtime_root(const struct options *o, const char *namespace_)
{
    return fs_join(o->root ? o->root : OPTIONS_RUNTIME_ROOT, namespace_);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/args.h"

#include "base/identifier.h"
#include "base/str.h"

enum generation { BOTH, V1, V2 };

/* Exactly one of string and flag is not 0 (offset + 1). */
struct option {
    const char *name;
    enum generation generation;
    size_t string;
    size_t flag;
    enum args_action action; /* of a flag that stands for one */
};

#define STRING(field) .string = offsetof(struct args, field) + 1
#define FLAG(field) .flag = offsetof(struct args, field) + 1

static const struct option options[] = {
    {"address", BOTH, STRING(address)},
    {"bundle", V2, STRING(bundle)},
    {"containerd-binary", V1, STRING(publish_binary)},
    {"criu", V1, STRING(criu)},
    {"criu-path", V1, STRING(criu)},
    {"debug", BOTH, FLAG(debug)},
    {"debug-socket", V2, STRING(debug_socket)},
    {"id", V2, STRING(id)},
    {"info", V2, .action = ARGS_INFO},
    {"namespace", BOTH, STRING(namespace_)},
    {"publish-binary", V2, STRING(publish_binary)},
    {"runtime-root", V1, STRING(runtime_root)},
    {"socket", BOTH, STRING(socket)},
    {"systemd-cgroup", V1, FLAG(systemd_cgroup)},
    {"v", BOTH, .action = ARGS_VERSION},
    {"version", BOTH, .action = ARGS_VERSION},
    {"workdir", V1, STRING(workdir)},
};

static const struct option *find_option(const char *name, size_t n, bool v1)
{
    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        if (strlen(options[i].name) == n && memcmp(options[i].name, name, n) == 0 &&
            options[i].generation != (v1 ? V2 : V1))
            return &options[i];
    return NULL;
}

static int parse_bool(const char *value, bool *ret)
{
    static const char *const yes[] = {"1", "t", "T", "true", "TRUE", "True"};
    static const char *const no[] = {"0", "f", "F", "false", "FALSE", "False"};

    for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
        if (str_eq(value, yes[i]) || str_eq(value, no[i])) {
            *ret = str_eq(value, yes[i]);
            return 0;
        }
    }
    return -EINVAL;
}

static int set_option(const struct option *o, const char *value, struct args *a, struct err *e)
{
    bool on = true;

    if (o->string) {
        if (!value)
            return err_set(e, ERR_INVALID_ARGUMENT, "flag needs an argument: -%s", o->name);
        *(const char **)((char *)a + o->string - 1) = value;
        return 0;
    }
    if (value && parse_bool(value, &on) < 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "invalid boolean value \"%.100s\" for -%s", value,
                       o->name);
    if (o->flag)
        *(bool *)((char *)a + o->flag - 1) = on;
    else if (on)
        a->action = o->action;
    return 0;
}

static int parse_action(const char *word, struct args *a, struct err *e)
{
    if (str_eq(word, "start"))
        a->action = ARGS_START;
    else if (str_eq(word, "delete"))
        a->action = ARGS_DELETE;
    else
        return err_set(e, ERR_INVALID_ARGUMENT, "unknown action \"%.100s\": not start or delete",
                       word);
    return 0;
}

static int check(const struct args *a, bool v1, struct err *e)
{
    if (a->action == ARGS_VERSION || a->action == ARGS_INFO)
        return 0;
    if (str_empty(a->namespace_))
        return err_set(e, ERR_INVALID_ARGUMENT, "shim namespace cannot be empty");
    if (identifier_validate(a->namespace_, e) < 0)
        return err_wrap(e, "shim namespace");
    if (v1)
        return 0;
    if (str_empty(a->id))
        return err_set(e, ERR_INVALID_ARGUMENT, "shim id cannot be empty");
    if (identifier_validate(a->id, e) < 0)
        return err_wrap(e, "shim id");
    return 0;
}

int args_parse(int argc, char *const *argv, bool v1, struct args *ret, struct err *e)
{
    struct args a = {
        .action = ARGS_SERVE,
        .namespace_ = "",
        .id = "",
        .address = "",
        .publish_binary = "containerd",
        .bundle = "",
        .socket = "",
        .workdir = "",
        .runtime_root = "",
        .criu = "",
    };
    int i = 1;

    for (; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-' || word[1] == '\0')
            break;
        if (str_eq(word, "--")) {
            i++;
            break;
        }
        const char *name = word + (word[1] == '-' ? 2 : 1);
        size_t n = strcspn(name, "=");
        const struct option *o = find_option(name, n, v1);
        if (!o)
            return err_set(e, ERR_INVALID_ARGUMENT, "flag provided but not defined: -%.100s", name);
        const char *value = name[n] == '=' ? name + n + 1 : NULL;
        if (!value && o->string && i + 1 < argc)
            value = argv[++i];
        if (set_option(o, value, &a, e) < 0)
            return ERR_RETURN;
    }
    if (i < argc && !v1 && parse_action(argv[i], &a, e) < 0)
        return ERR_RETURN;
    if (check(&a, v1, e) < 0)
        return ERR_RETURN;
    *ret = a;
    return 0;
}

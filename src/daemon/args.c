/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/args.h"

#include "base/str.h"

const char daemon_usage[] =
    "Usage: wherryd [flags] [command]\n"
    "\n"
    "The container daemon: serves containerd's API on a unix socket.\n"
    "\n"
    "Commands:\n"
    "  config default    print the default configuration\n"
    "  config dump       print the configuration in force\n"
    "  publish           publish an event read from standard input (--topic, --namespace)\n"
    "\n"
    "Flags:\n"
    "  -c, --config PATH      configuration file (default /etc/wherry/config.toml)\n"
    "  -l, --log-level LEVEL  trace, debug, info, warn, error or fatal\n"
    "  -a, --address PATH     socket to serve on (default /run/wherry/wherry.sock)\n"
    "      --root PATH        directory of what is kept (default /var/lib/wherry)\n"
    "      --state PATH       directory of what ends with the machine (default /run/wherry)\n"
    "  -v, --version          print the version\n"
    "  -h, --help             print this\n";

struct flag {
    const char *name;
    const char *short_name;
    size_t offset; /* of the const char * in struct daemon_args */
    bool of_publish;
};
#define FIELD(f) offsetof(struct daemon_args, f)
static const struct flag flags[] = {
    {"address", "a", FIELD(address), false},     {"config", "c", FIELD(config), false},
    {"log-level", "l", FIELD(log_level), false}, {"namespace", NULL, FIELD(namespace_), true},
    {"root", NULL, FIELD(root), false},          {"state", NULL, FIELD(state), false},
    {"topic", NULL, FIELD(topic), true},
};

static bool name_is(const char *word, size_t n, const char *name)
{
    return name && strlen(name) == n && strncmp(word, name, n) == 0;
}

/* Returns how many words the flag took. */
static int parse_flag(int argc, char **argv, int i, struct daemon_args *a, struct err *e)
{
    const char *word = argv[i] + (argv[i][1] == '-' ? 2 : 1);
    size_t n = strcspn(word, "=");

    if (name_is(word, n, "help") || name_is(word, n, "h")) {
        a->command = COMMAND_HELP;
        return 1;
    }
    if (name_is(word, n, "version") || name_is(word, n, "v")) {
        a->command = COMMAND_VERSION;
        return 1;
    }
    for (size_t f = 0; f < ARRAY_SIZE(flags); f++) {
        if (!name_is(word, n, flags[f].name) && !name_is(word, n, flags[f].short_name))
            continue;
        if (flags[f].of_publish && a->command != COMMAND_PUBLISH)
            return err_set(e, ERR_INVALID_ARGUMENT, "flag --%s is for the command publish only",
                           flags[f].name);
        if (word[n] != '=' && i + 1 >= argc)
            return err_set(e, ERR_INVALID_ARGUMENT, "flag --%s wants a value", flags[f].name);
        const char **field = (const char **)((char *)a + flags[f].offset);
        *field = word[n] == '=' ? word + n + 1 : argv[i + 1];
        return word[n] == '=' ? 1 : 2;
    }
    return err_set(e, ERR_INVALID_ARGUMENT, "unknown flag %s; see wherryd --help", argv[i]);
}

static int parse_command(int argc, char **argv, int i, struct daemon_args *a, struct err *e)
{
    const char *next = i + 1 < argc ? argv[i + 1] : "";

    if (a->command != COMMAND_SERVE)
        return err_set(e, ERR_INVALID_ARGUMENT, "unexpected word %s; see wherryd --help", argv[i]);
    if (str_eq(argv[i], "publish")) {
        a->command = COMMAND_PUBLISH;
        return 1;
    }
    if (str_eq(argv[i], "config") && str_eq(next, "default")) {
        a->command = COMMAND_CONFIG_DEFAULT;
        return 2;
    }
    if (str_eq(argv[i], "config") && str_eq(next, "dump")) {
        a->command = COMMAND_CONFIG_DUMP;
        return 2;
    }
    if (str_eq(argv[i], "config"))
        return err_set(e, ERR_INVALID_ARGUMENT, "config wants `default` or `dump`");
    return err_set(e, ERR_INVALID_ARGUMENT, "unknown command %s; see wherryd --help", argv[i]);
}

int daemon_args_parse(int argc, char **argv, struct daemon_args *ret, struct err *e)
{
    struct daemon_args a = {.command = COMMAND_SERVE};

    for (int i = 1; i < argc;) {
        int taken = argv[i][0] == '-' && argv[i][1] ? parse_flag(argc, argv, i, &a, e)
                                                    : parse_command(argc, argv, i, &a, e);
        if (taken < 0)
            return taken;
        if (a.command == COMMAND_HELP || a.command == COMMAND_VERSION)
            break;
        i += taken;
    }
    *ret = a;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/command.h"

#include <signal.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/suggest.h"
#include "cli/table.h"

struct globals {
    const char *address, *namespace_;
    bool json, version;
};

static const struct flag global_flags[] = {
    {"address", 'a', FLAG_STRING, offsetof(struct globals, address), "PATH",
     "socket of the daemon (default " CLI_DEFAULT_ADDRESS ")"},
    {"namespace", 'n', FLAG_STRING, offsetof(struct globals, namespace_), "NAME",
     "namespace to work in (default " CLI_DEFAULT_NAMESPACE ")"},
    {"json", 0, FLAG_BOOL, offsetof(struct globals, json), NULL, "output for programs"},
    {"version", 'v', FLAG_BOOL, offsetof(struct globals, version), NULL,
     "print the version of this program"},
};
static const struct flag_table global_table = FLAGS(global_flags);

static const struct command *const tables[] = {
    commands_run,    commands_exec,   commands_containers, commands_tasks,
    commands_images, commands_system, commands_checkpoint, commands_nouns,
};

#define FOREACH_COMMAND(c)                             \
    for (size_t t_ = 0; t_ < ARRAY_SIZE(tables); t_++) \
        for (const struct command *c = tables[t_]; c->name; c++)

static void print_flags(const struct flag_table *table)
{
    for (size_t i = 0; i < table->n; i++) {
        const struct flag *f = &table->flags[i];
        char left[64];

        snprintf(left, sizeof(left), "%s%c%s--%s%s%s", f->letter ? "-" : "  ",
                 f->letter ? f->letter : ' ', f->letter ? ", " : " ", f->name,
                 f->value_name ? " " : "", str_or_empty(f->value_name));
        printf("  %-30s %s\n", left, f->help);
    }
}

static int print_help(void)
{
    printf("wherry runs and looks after containers.\n\n"
           "Usage: wherry [GLOBAL FLAGS] COMMAND [FLAGS] [ARGUMENTS]\n\nCommands:\n");
    FOREACH_COMMAND(c)
    printf("  %-16s %s\n", c->name, c->summary);
    printf("\nGlobal flags:\n");
    print_flags(&global_table);
    printf(
        "\n\"wherry COMMAND --help\" tells more about one command, wherry(1) about all of them.\n");
    return 0;
}

static int print_command_help(const struct command *c)
{
    printf("Usage: wherry %s%s%s\n\n%s\n", c->name, *c->usage ? " " : "", c->usage, c->summary);
    if (c->detail)
        printf("\n%s\n", c->detail);
    if (c->flags) {
        printf("\nFlags:\n");
        print_flags(c->flags);
    }
    return 0;
}

int command_fail(const struct err *e, int exit_code)
{
    _free_ char *text = table_escape(e->msg);

    fflush(stdout);
    fprintf(stderr, "wherry: %s\n", text ? text : "out of memory");
    return exit_code;
}

/* Matches the words against a command's name. Returns how many words it took, 0 for no match. A
 * noun alone means its list. */
static int match(const struct command *c, int argc, char **argv)
{
    const char *space = strchr(c->name, ' ');
    size_t n = space ? (size_t)(space - c->name) : strlen(c->name);

    if (strlen(argv[0]) != n || memcmp(argv[0], c->name, n) != 0)
        return 0;
    if (!space)
        return 1;
    if (argc == 1 || argv[1][0] == '-')
        return str_eq(space + 1, "ls") ? 1 : 0;
    if (str_eq(argv[1], space + 1) || (str_eq(space + 1, "ls") && str_eq(argv[1], "list")))
        return 2;
    return 0;
}

static const struct command *find(int argc, char **argv, int *ret_words, struct err *e)
{
    struct suggest s = SUGGEST_INIT(argv[0]), verb = SUGGEST_INIT(argc > 1 ? argv[1] : "");
    const size_t n = strlen(argv[0]);
    bool is_noun = false;

    FOREACH_COMMAND(c)
    {
        *ret_words = match(c, argc, argv);
        if (*ret_words > 0)
            return c;
        if (strncmp(c->name, argv[0], n) == 0 && c->name[n] == ' ') {
            is_noun = true;
            suggest_try(&verb, c->name + n + 1);
        }
        suggest_try(&s, c->name);
    }
    if (is_noun)
        err_set(e, ERR_INVALID_ARGUMENT, "\"%s\" has no command \"%s\"; try \"wherry %s ls\"",
                argv[0], argc > 1 ? argv[1] : "", argv[0]);
    else if (s.best)
        err_set(e, ERR_INVALID_ARGUMENT, "unknown command \"%s\"; did you mean \"wherry %s\"?",
                argv[0], s.best);
    else
        err_set(e, ERR_INVALID_ARGUMENT,
                "unknown command \"%s\"; \"wherry --help\" lists all commands", argv[0]);
    return NULL;
}

static int check_count(const struct command *c, int n, struct err *e)
{
    if (n < c->min_args)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s needs %s: wherry %s %s", c->name,
                       n == 0 ? "an argument" : "more arguments", c->name, c->usage);
    if (c->max_args >= 0 && n > c->max_args)
        return err_set(e, ERR_INVALID_ARGUMENT, "%s takes no more than %d argument%s: wherry %s %s",
                       c->name, c->max_args, c->max_args == 1 ? "" : "s", c->name, c->usage);
    return 0;
}

/* The flags of a command, and --json, which may stand behind the command as well: it is kept behind
 * the command's own options. */
static int command_flags(const struct command *c, struct flag_table *ret)
{
    size_t n = c->flags ? c->flags->n : 0;
    struct flag *flags = calloc(n + 1, sizeof(*flags));

    if (!flags)
        return -ENOMEM;
    if (n > 0)
        memcpy(flags, c->flags->flags, n * sizeof(*flags));
    flags[n] = (struct flag){"json", 0, FLAG_BOOL, c->options_size, NULL, ""};
    *ret = (struct flag_table){.flags = flags, .n = n + 1};
    return 0;
}

static int run_command(const struct command *c, const struct globals *g, void *options, int argc,
                       char **argv, struct err *e)
{
    bool json = *(const bool *)((const char *)options + c->options_size);
    struct cli cli;
    int r = check_count(c, argc, e);

    if (r == 0)
        r = cli_init(&cli, e);
    if (r < 0)
        return r;
    cli.address = g->address;
    cli.namespace_ = g->namespace_;
    cli.json = g->json || json;
    r = c->run(&cli, options, argc, argv, e);
    cli_done(&cli);
    if (fflush(stdout) != 0 && r == 0 && errno != EPIPE)
        return err_errno(e, -errno, "write the output");
    return r;
}

static int run(const struct command *c, const struct globals *g, int argc, char **argv)
{
    _free_ char *options = calloc(1, c->options_size + sizeof(bool));
    struct flag_table table = {};
    char **args = NULL;
    struct err e = ERR_INIT;
    int n_args = 0, r;

    r = options && command_flags(c, &table) == 0
            ? flags_parse(&table, c->options_first, argc, argv, options, &args, &n_args, &e)
            : err_oom(&e);
    if (r == 1)
        r = print_command_help(c);
    else if (r == 0)
        r = run_command(c, g, options, n_args, args, &e);
    flags_done(&table, options);
    free((void *)table.flags);
    free(args);
    return r < 0 ? command_fail(&e, c->own_failures_are_125 ? CLI_EXIT_WHERRY : CLI_EXIT_ERROR) : r;
}

static const char *first_env(const char *a, const char *b, const char *otherwise)
{
    const char *value = getenv(a);

    if (str_empty(value) && b)
        value = getenv(b);
    return str_empty(value) ? otherwise : value;
}

int command_main(int argc, char **argv)
{
    struct globals g = {
        .address = first_env("WHERRY_ADDRESS", "CONTAINERD_ADDRESS", CLI_DEFAULT_ADDRESS),
        .namespace_ = first_env("CONTAINERD_NAMESPACE", NULL, CLI_DEFAULT_NAMESPACE),
    };
    const struct command *c;
    struct err e = ERR_INIT;
    char **args = NULL;
    int n_args = 0, words = 0, r;

    signal(SIGPIPE, SIG_IGN);
    r = flags_parse(&global_table, true, argc - 1, argv + 1, &g, &args, &n_args, &e);
    if (r < 0)
        return command_fail(&e, CLI_EXIT_ERROR);
    if (g.version)
        printf("wherry %s\n", WHERRY_VERSION);
    if (r == 0 && !g.version && n_args > 0 && str_eq(args[0], "help")) {
        args[0] = n_args > 1 ? args[1] : args[0];
        c = n_args > 1 ? find(n_args - 1, args + 1, &words, &e) : NULL;
        r = n_args > 1 ? (c ? print_command_help(c) : command_fail(&e, CLI_EXIT_ERROR))
                       : print_help();
    } else if (r == 1 || (n_args == 0 && !g.version)) {
        r = print_help();
    } else if (!g.version) {
        c = find(n_args, args, &words, &e);
        r = c ? run(c, &g, n_args - words, args + words) : command_fail(&e, CLI_EXIT_ERROR);
    }
    free(args);
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/flags.h"

#include "base/str.h"
#include "cli/suggest.h"

struct parse {
    const struct flag_table *table;
    void *options;
    int argc;
    char **argv;
    int at; /* the next word */
};

static const struct flag *find_name(const struct flag_table *t, const char *name, size_t n)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strlen(t->flags[i].name) == n && memcmp(t->flags[i].name, name, n) == 0)
            return &t->flags[i];
    }
    return NULL;
}

static const struct flag *find_letter(const struct flag_table *t, char letter)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->flags[i].letter == letter)
            return &t->flags[i];
    }
    return NULL;
}

static int unknown_name(const struct flag_table *t, const char *name, struct err *e)
{
    struct suggest s = SUGGEST_INIT(name);

    for (size_t i = 0; i < t->n; i++)
        suggest_try(&s, t->flags[i].name);
    suggest_try(&s, "help");
    if (s.best)
        return err_set(e, ERR_INVALID_ARGUMENT, "unknown flag --%s; did you mean --%s?", name,
                       s.best);
    return err_set(e, ERR_INVALID_ARGUMENT, "unknown flag --%s; --help lists them", name);
}

static int store_bool(const struct flag *f, void *options, const char *value, struct err *e)
{
    bool *target = (bool *)((char *)options + f->offset);

    if (!value || str_eq(value, "true"))
        *target = true;
    else if (str_eq(value, "false"))
        *target = false;
    else
        return err_set(e, ERR_INVALID_ARGUMENT, "--%s takes no value but true or false, not \"%s\"",
                       f->name, value);
    return 0;
}

static int store_value(const struct flag *f, void *options, const char *value, struct err *e)
{
    void *target = (char *)options + f->offset;

    if (f->kind == FLAG_STRING) {
        *(const char **)target = value;
        return 0;
    }
    if (strv_push((char ***)target, value) < 0)
        return err_oom(e);
    return 0;
}

/* The value of f: what came with the flag, else the next word. */
static int take_value(struct parse *p, const struct flag *f, const char *given, struct err *e)
{
    if (f->kind == FLAG_BOOL)
        return store_bool(f, p->options, given, e);
    if (!given) {
        if (p->at >= p->argc)
            return err_set(e, ERR_INVALID_ARGUMENT, "--%s needs a value: --%s %s", f->name, f->name,
                           f->value_name);
        given = p->argv[p->at++];
    }
    return store_value(f, p->options, given, e);
}

static int parse_long(struct parse *p, const char *word, struct err *e)
{
    const char *equals = strchr(word, '=');
    size_t n = equals ? (size_t)(equals - word) : strlen(word);
    const struct flag *f = find_name(p->table, word, n);

    if (!f) {
        _free_ char *name = strndup(word, n);
        if (!name)
            return err_oom(e);
        if (str_eq(name, "help"))
            return 1;
        return unknown_name(p->table, name, e);
    }
    return take_value(p, f, equals ? equals + 1 : NULL, e);
}

static int parse_letters(struct parse *p, const char *word, struct err *e)
{
    for (; *word; word++) {
        const struct flag *f = find_letter(p->table, *word);
        int r;

        if (!f && *word == 'h')
            return 1;
        if (!f)
            return err_set(e, ERR_INVALID_ARGUMENT, "unknown flag -%c; --help lists them", *word);
        if (f->kind == FLAG_BOOL) {
            r = store_bool(f, p->options, NULL, e);
            if (r < 0)
                return r;
            continue;
        }
        word++;
        if (*word == '=')
            word++;
        else if (!*word)
            word = NULL;
        return take_value(p, f, word, e);
    }
    return 0;
}

int flags_parse(const struct flag_table *table, bool options_first, int argc, char **argv,
                void *options, char ***ret_args, int *ret_n_args, struct err *e)
{
    struct parse p = {.table = table, .options = options, .argc = argc, .argv = argv};
    char **args = calloc((size_t)argc + 1, sizeof(*args));
    int n_args = 0, r = 0;

    if (!args)
        return err_oom(e);
    while (p.at < argc && r == 0) {
        char *word = argv[p.at++];

        if (str_eq(word, "--"))
            break;
        if (word[0] == '-' && word[1] == '-') {
            r = parse_long(&p, word + 2, e);
        } else if (word[0] == '-' && word[1]) {
            r = parse_letters(&p, word + 1, e);
        } else {
            args[n_args++] = word;
            if (options_first)
                break;
        }
    }
    if (r != 0) {
        free(args);
        return r;
    }
    while (p.at < argc)
        args[n_args++] = argv[p.at++];
    *ret_args = args;
    *ret_n_args = n_args;
    return 0;
}

void flags_done(const struct flag_table *table, void *options)
{
    for (size_t i = 0; i < table->n; i++) {
        char ***list = (char ***)((char *)options + table->flags[i].offset);
        if (table->flags[i].kind != FLAG_LIST)
            continue;
        strv_free(*list);
        *list = NULL;
    }
}

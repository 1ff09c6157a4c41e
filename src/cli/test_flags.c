/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/str.h"
#include "cli/detach_keys.h"
#include "cli/flags.h"
#include "cli/suggest.h"

struct options {
    bool detach, interactive, terminal;
    const char *name;
    char **env;
};
static const struct flag flags[] = {
    {"detach", 'd', FLAG_BOOL, offsetof(struct options, detach), NULL, ""},
    {"interactive", 'i', FLAG_BOOL, offsetof(struct options, interactive), NULL, ""},
    {"tty", 't', FLAG_BOOL, offsetof(struct options, terminal), NULL, ""},
    {"name", 0, FLAG_STRING, offsetof(struct options, name), "NAME", ""},
    {"env", 'e', FLAG_LIST, offsetof(struct options, env), "NAME=VALUE", ""},
};
static const struct flag_table table = FLAGS(flags);

static int parse(bool first, struct options *o, const char **words, char ***args, int *n_args,
                 struct err *e)
{
    int n = 0;

    while (words[n])
        n++;
    *o = (struct options){};
    return flags_parse(&table, first, n, (char **)words, o, args, n_args, e);
}

static void test_forms(void **state)
{
    const char *words[] = {"-it", "--name=a=b", "-eA=1",          "-e",    "B=2", "--env",
                           "C=3", "-e=D=4",     "--detach=false", "image", NULL};
    struct options o;
    struct err e = ERR_INIT;
    char **args = NULL;
    int n = 0;

    assert_int_equal(parse(true, &o, words, &args, &n, &e), 0);
    assert_true(o.interactive && o.terminal && !o.detach);
    assert_string_equal(o.name, "a=b");
    assert_int_equal(strv_len(o.env), 4);
    assert_string_equal(o.env[0], "A=1");
    assert_string_equal(o.env[3], "D=4");
    assert_int_equal(n, 1);
    flags_done(&table, &o);
    assert_null(o.env);
    free(args);
}

static void test_options_first(void **state)
{
    const char *words[] = {"-d", "image", "ls", "-l", "--unknown", NULL};
    struct options o;
    struct err e = ERR_INIT;
    char **args = NULL;
    int n = 0;

    assert_int_equal(parse(true, &o, words, &args, &n, &e), 0);
    assert_int_equal(n, 4);
    assert_string_equal(args[3], "--unknown");
    free(args);
    assert_true(parse(false, &o, words, &args, &n, &e) < 0);
    assert_non_null(strstr(e.msg, "unknown flag -l"));
}

static void test_dashes_end_flags(void **state)
{
    const char *words[] = {"a", "--", "-d", NULL};
    struct options o;
    struct err e = ERR_INIT;
    char **args = NULL;
    int n = 0;

    assert_int_equal(parse(false, &o, words, &args, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_false(o.detach);
    free(args);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *words[3];
        const char *sentence;
    } cases[] = {
        {{"--nmae", "x"}, "did you mean --name"},
        {{"--zzzzzz"}, "unknown flag --zzzzzz"},
        {{"-x"}, "unknown flag -x"},
        {{"--name"}, "--name needs a value"},
        {{"--tty=perhaps"}, "true or false"},
        {{"-e"}, "--env needs a value"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *words[] = {cases[i].words[0], cases[i].words[1], NULL};
        struct options o;
        struct err e = ERR_INIT;
        char **args = NULL;
        int n = 0;

        assert_true(parse(false, &o, words, &args, &n, &e) < 0);
        assert_non_null(strstr(e.msg, cases[i].sentence));
        flags_done(&table, &o);
    }
}

static void test_help(void **state)
{
    const char *a[] = {"--help", NULL}, *b[] = {"-dh", NULL};
    struct options o;
    struct err e = ERR_INIT;
    char **args = NULL;
    int n = 0;

    assert_int_equal(parse(true, &o, a, &args, &n, &e), 1);
    assert_int_equal(parse(true, &o, b, &args, &n, &e), 1);
}

static void test_suggest(void **state)
{
    static const char *const words[] = {"run", "runn", "rnu", "inspct", "imag", "x", "frobnicate"};
    static const char *const expected[] = {"run", "run", "run", "inspect", "images", NULL, NULL};
    static const char *const known[] = {"run", "images", "inspect", "events", "unpause"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        struct suggest s = SUGGEST_INIT(words[i]);
        for (size_t k = 0; k < ARRAY_SIZE(known); k++)
            suggest_try(&s, known[k]);
        assert_true(str_eq(s.best, expected[i]));
    }
}

/* Every way to cut the input gives the same output. */
static void test_detach_keys(void **state)
{
    static const struct {
        const char *in, *out;
        bool detaches;
    } cases[] = {
        {"abc", "abc", false},
        {"a\x10\x11zzz", "a", true},
        {"\x10x", "\x10x", false},
        {"\x10\x10\x11", "\x10", true},
        {"\x11\x10\x10q", "\x11\x10\x10q", false},
        {"tail\x10", "tail", false}, /* kept back */
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t n = strlen(cases[i].in);
        for (size_t cut = 0; cut <= n; cut++) {
            struct detach_keys d = {};
            uint8_t out[64];
            size_t a = 0, b = 0;
            bool detached = detach_keys_feed(&d, (const uint8_t *)cases[i].in, cut, out, &a);

            if (!detached)
                detached =
                    detach_keys_feed(&d, (const uint8_t *)cases[i].in + cut, n - cut, out + a, &b);
            assert_int_equal(detached, cases[i].detaches);
            assert_int_equal(a + b, strlen(cases[i].out));
            assert_memory_equal(out, cases[i].out, a + b);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_options_first),
        cmocka_unit_test(test_dashes_end_flags),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_suggest),
        cmocka_unit_test(test_detach_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

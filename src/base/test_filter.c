/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/filter.h"
#include "base/str.h"

struct thing {
    const char *name, *other, *label;
};

static const char *thing_field(const void *object, const char *const *path, size_t n)
{
    const struct thing *t = object;
    char key[64];

    if (n == 0)
        return NULL;
    if (strcmp(path[0], "name") == 0)
        return t->name;
    if (strcmp(path[0], "other") == 0)
        return t->other;
    if (strcmp(path[0], "labels") == 0 && n > 1 &&
        strcmp(filter_join_path(path, 1, n, key, sizeof(key)), "containerd.io/a") == 0)
        return t->label;
    return NULL;
}

static bool holds(const char *expression, const struct thing *t)
{
    struct err e = ERR_INIT;
    struct filter *f = NULL;

    if (filter_parse(&expression, 1, &f, &e) < 0)
        fail_msg("%s: %s", expression, e.msg);
    bool r = filter_matches(f, thing_field, t);
    filter_free(f);
    return r;
}

static void matches(void **state)
{
    const struct thing t = {.name = "abc", .label = "a \"b\"\n"};

    assert_true(holds("", &t));
    assert_true(holds("name", &t));
    assert_false(holds("other", &t));
    assert_false(holds("unknown", &t));
    assert_true(holds("name==abc", &t));
    assert_true(holds("name == abc", &t));
    assert_true(holds(" name  ==  \"abc\" ", &t));
    assert_false(holds("name==ab", &t));
    assert_true(holds("name!=ab", &t));
    assert_true(holds("other!=x", &t));
    assert_false(holds("other==x", &t));
    assert_true(holds("name~=b", &t));
    assert_false(holds("name~=^b", &t));
    assert_true(holds("name~=/^a.c$/", &t));
    assert_true(holds("name~=|^a.c$|", &t));
    assert_true(holds("name~=^\\w+$", &t));
    assert_true(holds("name==abc,name", &t));
    assert_false(holds("name==abc,other", &t));
    assert_true(holds("labels.\"containerd.io/a\"", &t));
    assert_true(holds("labels.\"containerd.io/a\"==\"a \\\"b\\\"\\n\"", &t));
    assert_true(holds("labels.containerd.\"io/a\"~=a", &t));
    assert_true(holds("name==\"\\x61\\142\\u0063\"", &t));
    assert_false(holds("name==\"\\U0001F600\"", &t));
    /* A value may hold what would be another token elsewhere. */
    const struct thing odd = {.name = "sha256:a=b.c/d!"};
    assert_true(holds("name==sha256:a=b.c/d!", &odd));
}

static void lists_are_alternatives(void **state)
{
    const struct thing t = {.name = "abc"};
    const char *const either[] = {"name==x", "name==abc"}, *const none[] = {"name==x", "other"},
                      *const all[] = {"name==x", ""};
    struct filter *f;

    assert_int_equal(filter_parse(NULL, 0, &f, NULL), 0);
    assert_true(filter_is_all(f));
    assert_true(filter_matches(f, thing_field, &t));
    f = filter_free(f);
    assert_int_equal(filter_parse(either, 2, &f, NULL), 0);
    assert_false(filter_is_all(f));
    assert_true(filter_matches(f, thing_field, &t));
    f = filter_free(f);
    assert_int_equal(filter_parse(none, 2, &f, NULL), 0);
    assert_false(filter_matches(f, thing_field, &t));
    f = filter_free(f);
    assert_int_equal(filter_parse(all, 2, &f, NULL), 0);
    assert_true(filter_is_all(f));
    f = filter_free(f);
    assert_null(f);
}

static void refuses_with_the_place(void **state)
{
    static const char *const cases[][2] = {
        {"topic==/tasks/exit", "[topic== >|/|< tasks/exit]: invalid quote encountered"},
        {"topic==/x", "[topic== >|/|< x]: quoted literal not terminated"},
        {"a=b", "[a >|=|< b]: unsupported operator \"=\""},
        {"a===b", "[a >|=|< ==b]: unsupported operator \"===\""},
        {"a==", "[a==]: expected value or quoted"},
        {"a==,b", "[a== >|,|< b]: expected value or quoted"},
        {"==b", "[ >|=|< =b]: expected field or quoted"},
        {"a,", "[a,]: expected field or quoted"},
        {"a.", "[a.]: expected field or quoted"},
        {"a..b", "[a. >|.|< b]: expected field or quoted"},
        {"a b", "[a  >|b|< ]: expected an operator (\"==\"|\"!=\"|\"~=\")"},
        {"a==b c", "[a==b >| |< c]: unexpected input:  "},
        {"a==\"b", "[a== >|\"|< b]: quoted literal not terminated"},
        {"a==\"\\q\"", "[a== >|\"|< \\q\"]: illegal escape sequence"},
        {"a==\"b\"\"c\"", "[a==\"b\" >|\"|< c\"]: unexpected input: \""},
        {"a==\"\\x4\"", "[a== >|\"|< \\x4\"]: illegal numeric escape sequence"},
        {"a==\"\\000\"", "[a==\" >|\\|< 000\"]: unquoting failed: invalid syntax"},
        {"a~=(", "[a~= >|(|< ]: error parsing regexp: missing closing ): `(`"},
        {"/a/==b", "[ >|/|< a/==b]: invalid quote encountered"},
    };
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct filter *f = NULL;
        _free_ char *expected =
            str_printf("filters: parse error: %s: invalid argument", cases[i][1]);
        if (filter_parse(&cases[i][0], 1, &f, &e) >= 0)
            fail_msg("%s was accepted", cases[i][0]);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_string_equal(e.msg, expected);
        assert_null(f);
    }
}

static void is_bounded(void **state)
{
    size_t size = FILTER_MAX_LEN + 2;
    _free_ char *s = malloc(size);
    const char *one = s;
    struct filter *f = NULL;
    struct err e = ERR_INIT;

    memset(s, 'a', size - 1);
    s[size - 1] = '\0';
    assert_true(filter_parse(&one, 1, &f, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    for (size_t i = 1; i < size - 2; i += 2)
        s[i] = ',';
    s[size - 2] = '\0';
    assert_true(filter_parse(&one, 1, &f, &e) < 0);
    assert_string_equal(e.msg, "filters: more than 4096 selectors: invalid argument");
    for (size_t i = 1; i < size - 2; i += 2)
        s[i] = '.';
    assert_true(filter_parse(&one, 1, &f, &e) < 0);
    assert_non_null(strstr(e.msg, "more than 64 fields"));
    /* A long expression keeps the beginning and the end of the sentence. */
    memset(s, ' ', FILTER_MAX_LEN);
    s[30000] = '*';
    assert_true(filter_parse(&one, 1, &f, &e) < 0);
    assert_non_null(str_after_prefix(e.msg, "filters: parse error: ["));
    assert_true(str_has_suffix(e.msg, ": invalid argument"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches),
        cmocka_unit_test(lists_are_alternatives),
        cmocka_unit_test(refuses_with_the_place),
        cmocka_unit_test(is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/str.h"
#include "base/toml.h"

static struct toml_value *parse(const char *text)
{
    struct err e = ERR_INIT;
    struct toml_value *v = NULL;

    if (toml_parse(text, strlen(text), "test.toml", &v, &e) < 0)
        fail_msg("%s\n%s", e.msg, text);
    return v;
}

/* The member `x` of the document, checked for its type. */
static const struct toml_value *member(const struct toml_value *root, enum toml_type type)
{
    const struct toml_value *v = toml_get(root, "x");

    assert_non_null(v);
    assert_int_equal(v->type, type);
    return v;
}

static void reads_strings(void **state)
{
    static const char *const cases[][2] = {
        {"x = \"\"", ""},
        {"x = \"a\\tb\\n\\\"\\\\\\b\\f\\r\"", "a\tb\n\"\\\b\f\r"},
        {"x = \"\\u00e9\\U0001F600\"", "é😀"},
        {"x = 'C:\\n'", "C:\\n"},
        {"x = ''", ""},
        {"x = \"\"\"\nfirst\nsecond\"\"\"", "first\nsecond"},
        {"x = \"\"\"\r\na\r\nb\"\"\"", "a\nb"},
        {"x = \"\"\"one \\  \n\n   two\"\"\"", "one two"},
        {"x = \"\"\"\"quoted\"\"\"\"", "\"quoted\""},
        {"x = \"\"\"\"\"two\"\"\"\"\"", "\"\"two\"\""},
        {"x = '''\n'a'\\\n'''", "'a'\\\n"},
        {"x = \"# no comment\" # a comment", "# no comment"},
        {"x = \"\ttab\"", "\ttab"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(toml_freep) struct toml_value *root = parse(cases[i][0]);
        const struct toml_value *v = member(root, TOML_STRING);
        assert_string_equal(v->string.bytes, cases[i][1]);
        assert_int_equal(v->string.len, strlen(cases[i][1]));
    }
    _cleanup_(toml_freep) struct toml_value *nul = parse("x = \"a\\u0000b\"");
    assert_int_equal(member(nul, TOML_STRING)->string.len, 3);
    assert_memory_equal(member(nul, TOML_STRING)->string.bytes, "a\0b", 4);
}

static void reads_integers(void **state)
{
    static const struct {
        const char *text;
        int64_t v;
    } cases[] = {
        {"x=0", 0},
        {"x=-0", 0},
        {"x=+99", 99},
        {"x=1_000_000", 1000000},
        {"x=9223372036854775807", INT64_MAX},
        {"x=-9223372036854775808", INT64_MIN},
        {"x=0xDEAD_beef", 0xdeadbeef},
        {"x=0o755", 0755},
        {"x=0b1101_0110", 0xd6},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(toml_freep) struct toml_value *root = parse(cases[i].text);
        assert_true(member(root, TOML_INTEGER)->integer == cases[i].v);
    }
}

static void reads_floats_and_booleans(void **state)
{
    static const struct {
        const char *text;
        double v;
    } cases[] = {
        {"x=1.5", 1.5},
        {"x=-0.0", -0.0},
        {"x=+1.0", 1.0},
        {"x=5e+22", 5e22},
        {"x=1e06", 1e6},
        {"x=-2E-2", -2e-2},
        {"x=6.626e-34", 6.626e-34},
        {"x=inf", INFINITY},
        {"x=-inf", -INFINITY},
        {"x=224_617.445_991_228", 224617.445991228},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(toml_freep) struct toml_value *root = parse(cases[i].text);
        const struct toml_value *v = member(root, TOML_FLOAT);
        assert_true(v->floating == cases[i].v && signbit(v->floating) == signbit(cases[i].v));
    }
    _cleanup_(toml_freep) struct toml_value *nan = parse("x=-nan");
    assert_true(isnan(member(nan, TOML_FLOAT)->floating));
    _cleanup_(toml_freep) struct toml_value *yes = parse("x=true");
    assert_true(member(yes, TOML_BOOL)->boolean);
    _cleanup_(toml_freep) struct toml_value *no = parse("x=false");
    assert_false(member(no, TOML_BOOL)->boolean);
}

static void reads_dates(void **state)
{
    static const struct {
        const char *text;
        enum toml_type type;
        struct toml_datetime d;
    } cases[] = {
        {"x=1979-05-27T07:32:00Z", TOML_OFFSET_DATETIME, {1979, 5, 27, 7, 32, 0, 0, 0}},
        {"x=1979-05-27 00:32:00.999999-07:30",
         TOML_OFFSET_DATETIME,
         {1979, 5, 27, 0, 32, 0, 999999000, -450}},
        {"x=1979-05-27t07:32:00.1234567891",
         TOML_LOCAL_DATETIME,
         {1979, 5, 27, 7, 32, 0, 123456789, 0}},
        {"x=2000-02-29 # leap", TOML_LOCAL_DATE, {2000, 2, 29, 0, 0, 0, 0, 0}},
        {"x=07:32:60", TOML_LOCAL_TIME, {0, 0, 0, 7, 32, 60, 0, 0}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(toml_freep) struct toml_value *root = parse(cases[i].text);
        const struct toml_value *v = member(root, cases[i].type);
        assert_memory_equal(&v->datetime, &cases[i].d, sizeof(v->datetime));
    }
}

static void reads_tables(void **state)
{
    _cleanup_(toml_freep) struct toml_value *root = parse("\xef\xbb\xbf# a document\r\n"
                                                          "top = 1\n"
                                                          "\"quoted key\".'x.y' . z = 2\n"
                                                          "[a.b.c]\n"
                                                          "v = { p.q = 1, r = [ {}, { s = 2 } ] }\n"
                                                          "[a] # later than its child\n"
                                                          "w = [\n  1, # one\n  2,\n]\n"
                                                          "d.e = 1\nd.f = 2\n"
                                                          "[a.d.sub]\n"
                                                          "[[list]]\nn = 1\n"
                                                          "[[list]]\nn = 2\n[list.child]\nm = 3\n"
                                                          "[[list.inner]]\n");

    assert_int_equal(toml_get(root, "top")->integer, 1);
    assert_int_equal(toml_get(toml_get(toml_get(root, "quoted key"), "x.y"), "z")->integer, 2);
    const struct toml_value *a = toml_get(root, "a");
    const struct toml_value *v = toml_get(toml_get(toml_get(a, "b"), "c"), "v");
    assert_int_equal(toml_get(toml_get(v, "p"), "q")->integer, 1);
    assert_int_equal(toml_get(toml_get(v, "r")->array.items[1], "s")->integer, 2);
    assert_int_equal(toml_get(a, "w")->array.n, 2);
    assert_int_equal(toml_get(toml_get(a, "d"), "f")->integer, 2);
    assert_non_null(toml_get(toml_get(a, "d"), "sub"));
    const struct toml_value *list = toml_get(root, "list");
    assert_int_equal(list->array.n, 2);
    assert_int_equal(toml_get(list->array.items[0], "n")->integer, 1);
    assert_int_equal(toml_get(toml_get(list->array.items[1], "child"), "m")->integer, 3);
    assert_null(toml_get(root, "missing"));
    assert_null(toml_get(NULL, "missing"));

    /* Lines are those of keys and values. */
    assert_int_equal(root->table.members[0].line, 2);
    assert_int_equal(toml_get(a, "w")->line, 7);
    assert_int_equal(toml_get(a, "w")->array.items[1]->line, 9);
    assert_int_equal(toml_get(a, "d")->line, 11);
    assert_int_equal(a->line, 6);
}

static void says_where(void **state)
{
    static const char *const cases[][2] = {
        {"a = 1\nb 2\n", "test.toml:2:3: expected = behind the key, found '2'"},
        {"é = 1", "test.toml:1:1: expected a key, found 'é'"},
        {"\"é\" = x", "test.toml:1:7: x is not a value; strings need quotes"},
        {"a = ", "test.toml:1:5: expected a value, found the end of the file"},
        {"a =\n", "test.toml:1:4: expected a value, found the end of the line"},
        {"a = 1 b = 2", "test.toml:1:7: expected the end of the line, found 'b'"},
        {"a = 1\na = 2", "test.toml:2:1: key a is already defined in line 1"},
        {"[a]\n[a]", "test.toml:2:2: a is already defined in line 1"},
        {"a = \"x\n",
         "test.toml:1:7: a string cannot span lines unless it begins with three quotes"},
        {"a = \"x", "test.toml:1:5: the string that begins here is not closed"},
        {"a = [1,\n2", "test.toml:2:2: expected , or ] in an array, found the end of the file"},
        {"a = [1,\n2,", "test.toml:1:5: the array that begins here is not closed"},
        {"[a.b", "test.toml:1:5: expected ] at the end of the header, found the end of the file"},
        {"a = 9223372036854775808", "test.toml:1:5: 9223372036854775808 does not fit in 64 bits"},
        {"a = 2026-02-30", "test.toml:1:5: 2026-02-30 is not a date or time"},
        {"a = \"\xff\"", "test.toml:1:6: byte 0xff is not UTF-8"},
        {"[a.b.c]\n[a]\nb.c.d = 1",
         "test.toml:3:3: table c is defined in line 1; a dotted key cannot add to it"},
        {"a = {}\n[a.b]",
         "test.toml:2:2: a is a table complete since line 1; a header cannot add to it"},
        {"a = 1\na.b = 1", "test.toml:2:1: key a is an integer since line 1, not a table"},
        {"a = []\n[[a]]", "test.toml:2:3: a is an array since line 1, not an array of tables"},
        {"\x01", "test.toml:1:1: expected a key, found byte 0x01"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct toml_value *v = NULL;
        struct err e = ERR_INIT;
        assert_true(toml_parse(cases[i][0], strlen(cases[i][0]), "test.toml", &v, &e) < 0);
        assert_null(v);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_string_equal(e.msg, cases[i][1]);
    }
}

static void refuses(void **state)
{
    static const char *const bad[] = {
        "= 1",
        "a",
        "a.b",
        "a. = 1",
        ".a = 1",
        "a..b = 1",
        "a b = 1",
        "\"\"\"a\"\"\" = 1",
        "a = 1,",
        "a = 01",
        "a = +0x1",
        "a = 0x",
        "a = 0xg",
        "a = 0X1",
        "a = 0b2",
        "a = 0o8",
        "a = 1_",
        "a = _1",
        "a = 1__0",
        "a = 0x_1",
        "a = 1.",
        "a = .1",
        "a = 1.e1",
        "a = 1e",
        "a = 1e_1",
        "a = 1_.0",
        "a = 01.0",
        "a = Inf",
        "a = TRUE",
        "a = truer",
        "a = 1979-05-27T",
        "a = 1979-05-27T07:32Z",
        "a = 1979-5-27",
        "a = 1979-13-01",
        "a = 1979-05-27T24:00:00",
        "a = 1979-05-27T00:00:00+24:00",
        "a = 1979-05-27T00:00:00.",
        "a = 7:32:00",
        "a = 07:32:61",
        "a = \"\\q\"",
        "a = \"\\u12\"",
        "a = \"\\ud800\"",
        "a = \"\\U00110000\"",
        "a = \"\x01\"",
        "a = '\x7f'",
        "a = '''x''",
        "a = \"\"\"x\\ y\"\"\"",
        "a = \"\"\"\"\"\"\"\"\"\"",
        "a = 'a\nb'",
        "a = [1 2]",
        "a = [,]",
        "a = [1,,2]",
        "a = {b=1,}",
        "a = {b=1\n}",
        "a = {b=1 c=2}",
        "a = {b=1, b=2}",
        "a = {b=1, b.c=2}",
        "a = {b={}, b.c=2}",
        "a = {}\na.b = 1",
        "a = {b.c=1}\n[a.b]",
        "[a]]",
        "[]",
        "[a.]",
        "[a] b=1",
        "[[a]",
        "[[a] ]",
        "[ [a]]",
        "[a]\nb.c=1\n[a.b]",
        "[a]\nb=1\n[a.b]",
        "[[a]]\n[a]",
        "[a]\n[[a]]",
        "[a.b]\n[a]\nb.c=1",
        "[[a.b]]\n[a]\nb.c=1",
        "a=[{}]\n[a.b]",
        "a=[{}]\n[[a.b]]",
        "# \x01",
        "a = 1 # \r x",
        "a = 1\rb = 2",
        "\xef\xbb",
        "a = 1\n\xef\xbb\xbf",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct toml_value *v = NULL;
        struct err e = ERR_INIT;
        if (toml_parse(bad[i], strlen(bad[i]), "test.toml", &v, &e) >= 0)
            fail_msg("accepted: %s", bad[i]);
        assert_non_null(str_after_prefix(e.msg, "test.toml:"));
    }
    struct toml_value *v = NULL;
    assert_true(toml_parse("a\0b", 3, "test.toml", &v, NULL) < 0);
}

/* s, n times. */
static char *repeat(const char *s, size_t n)
{
    size_t len = strlen(s);
    char *out = malloc(n * len + 1);

    for (size_t i = 0; i < n; i++)
        memcpy(out + i * len, s, len);
    out[n * len] = '\0';
    return out;
}

static void expect_refusal(const char *text, const char *why)
{
    struct toml_value *v = NULL;
    struct err e = ERR_INIT;

    assert_true(toml_parse(text, strlen(text), "test.toml", &v, &e) < 0);
    assert_non_null(strstr(e.msg, why));
}

static void is_bounded(void **state)
{
    _cleanup_(buf_done) struct buf b = BUF_INIT(TOML_MAX_BYTES);

    _free_ char *brackets = repeat("[", 100000);
    _free_ char *array = str_printf("a=%s", brackets);
    expect_refusal(array, "values nest more than 64 deep");
    _free_ char *braces = repeat("{a=", 100000);
    _free_ char *inline_table = str_printf("a=%s", braces);
    expect_refusal(inline_table, "values nest more than 64 deep");
    _free_ char *dots = repeat("a.", 100000);
    expect_refusal(dots, "keys nest more than 64 deep");
    _free_ char *header = str_printf("[%s", dots);
    expect_refusal(header, "keys nest more than 64 deep");
    _free_ char *ones = repeat("1,", TOML_MAX_VALUES);
    _free_ char *many = str_printf("a=[%s]", ones);
    expect_refusal(many, "more than 65536 values");
    for (int i = 0; i <= TOML_MAX_KEYS; i++)
        assert_int_equal(buf_printf(&b, "key%d=1\n", i), 0);
    _free_ char *keys = buf_take_str(&b);
    expect_refusal(keys, "test.toml:16385:1: more than 16384 keys");
    _free_ char *spaces = repeat(" ", TOML_MAX_BYTES + 1);
    expect_refusal(spaces, "larger than 1048576 bytes");

    /* What is exactly allowed, in the worst mixture: 62 parts of a key, then two arrays. */
    _free_ char *parts = repeat("a.", 61);
    _free_ char *deepest = str_printf("%sa=[[1]]", parts);
    _cleanup_(toml_freep) struct toml_value *root = parse(deepest);
    assert_int_equal(root->table.n, 1);
    _free_ char *too_deep = str_printf("%sa=[[[1]]]", parts);
    expect_refusal(too_deep, "values nest");
}

static void writes_strings(void **state)
{
    const char *s = "plain é \"quoted\" \\ \n\t\r\b\f \x01\x7f";
    _cleanup_(buf_done) struct buf b = BUF_INIT(1000);

    assert_int_equal(buf_append_str(&b, "x = "), 0);
    assert_int_equal(toml_write_string(&b, s), 0);
    _free_ char *text = buf_take_str(&b);
    assert_string_equal(text, "x = \"plain é \\\"quoted\\\" \\\\ \\n\\t\\r\\b\\f \\u0001\\u007F\"");
    _cleanup_(toml_freep) struct toml_value *root = parse(text);
    assert_string_equal(member(root, TOML_STRING)->string.bytes, s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_strings),
        cmocka_unit_test(reads_integers),
        cmocka_unit_test(reads_floats_and_booleans),
        cmocka_unit_test(reads_dates),
        cmocka_unit_test(reads_tables),
        cmocka_unit_test(says_where),
        cmocka_unit_test(refuses),
        cmocka_unit_test(is_bounded),
        cmocka_unit_test(writes_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

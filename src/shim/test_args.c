/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/str.h"
#include "shim/args.h"

static int parse(bool v1, struct args *a, struct err *e, char *const *argv)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    return args_parse(argc, argv, v1, a, e);
}
#define ARGV(...) ((char *const[]){(char *)"shim", __VA_ARGS__, NULL})
#define S(x) ((char *)(x))

static void test_start(void **state)
{
    struct args a;
    struct err e = ERR_INIT;

    assert_int_equal(
        parse(false, &a, &e,
              ARGV(S("-namespace"), S("default"), S("--address=/run/c.sock"), S("-publish-binary"),
                   S("/usr/bin/containerd"), S("--id"), S("c1"), S("-debug"), S("start"))),
        0);
    assert_int_equal(a.action, ARGS_START);
    assert_string_equal(a.namespace_, "default");
    assert_string_equal(a.address, "/run/c.sock");
    assert_string_equal(a.publish_binary, "/usr/bin/containerd");
    assert_string_equal(a.id, "c1");
    assert_true(a.debug);
    assert_string_equal(a.bundle, "");
}

static void test_others(void **state)
{
    struct args a;
    struct err e = ERR_INIT;

    assert_int_equal(parse(false, &a, &e,
                           ARGV(S("-namespace=n"), S("-id=x"), S("-bundle"), S("/b"),
                                S("-debug=false"), S("delete"))),
                     0);
    assert_int_equal(a.action, ARGS_DELETE);
    assert_string_equal(a.bundle, "/b");
    assert_false(a.debug);
    assert_int_equal(parse(false, &a, &e, ARGV(S("-v"))), 0);
    assert_int_equal(a.action, ARGS_VERSION);
    assert_int_equal(parse(false, &a, &e, ARGV(S("--info"))), 0);
    assert_int_equal(a.action, ARGS_INFO);
    assert_int_equal(parse(false, &a, &e, ARGV(S("-namespace"), S("n"), S("-id"), S("x"))), 0);
    assert_int_equal(a.action, ARGS_SERVE);
    assert_int_equal(parse(true, &a, &e,
                           ARGV(S("-namespace"), S("n"), S("-workdir"), S("/w"), S("-criu-path"),
                                S("/criu"), S("-runtime-root"), S("/r"), S("-systemd-cgroup"))),
                     0);
    assert_string_equal(a.workdir, "/w");
    assert_string_equal(a.criu, "/criu");
    assert_string_equal(a.runtime_root, "/r");
    assert_true(a.systemd_cgroup);
}

static void expect_error(const char *part, bool v1, char *const *argv)
{
    struct args a;
    struct err e = ERR_INIT;

    assert_true(parse(v1, &a, &e, argv) < 0);
    assert_non_null(strstr(e.msg, part));
}

static void test_errors(void **state)
{
    expect_error("shim namespace cannot be empty", false, ARGV(S("start")));
    expect_error("shim id cannot be empty", false, ARGV(S("-namespace"), S("n"), S("start")));
    expect_error("not defined: -nope", false, ARGV(S("-nope")));
    expect_error("needs an argument: -id", false, ARGV(S("-id")));
    expect_error("invalid boolean", false, ARGV(S("-debug=perhaps")));
    expect_error("unknown action", false, ARGV(S("-namespace"), S("n"), S("-id"), S("i"), S("x")));
    expect_error("not defined: -workdir", false, ARGV(S("-workdir"), S("x")));
    expect_error("not defined: -id", true, ARGV(S("-id"), S("x")));
    expect_error("identifier", false,
                 ARGV(S("-namespace"), S("n"), S("-id"), S("../x"), S("start")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

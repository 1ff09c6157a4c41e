/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>

#include "base/str.h"
#include "cli/env_file.h"
#include "cli/run_options.h"
#include "cli/volume.h"

static void test_cpus(void **state)
{
    static const struct {
        const char *text;
        int64_t quota; /* -1: refused */
    } cases[] = {
        {"1", 100000}, {"1.5", 150000}, {"0.01", 1000}, {".5", 50000},    {"16.25", 1625000},
        {"", -1},      {".", -1},       {"0", -1},      {"0.001", -1},    {"-1", -1},
        {"1x", -1},    {"1.5.5", -1},   {"1e3", -1},    {"0.000001", -1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct err e = ERR_INIT;
        int64_t quota = -1;
        uint64_t period = 0;
        int r = run_parse_cpus(cases[i].text, &quota, &period, &e);

        assert_int_equal(r < 0, cases[i].quota < 0);
        assert_int_equal(quota, cases[i].quota);
    }
}

static void test_signals(void **state)
{
    struct err e = ERR_INIT;
    int sig = 0;

    assert_int_equal(run_parse_signal("TERM", &sig, &e), 0);
    assert_int_equal(sig, SIGTERM);
    assert_int_equal(run_parse_signal("sigusr1", &sig, &e), 0);
    assert_int_equal(sig, SIGUSR1);
    assert_int_equal(run_parse_signal("9", &sig, &e), 0);
    assert_int_equal(sig, SIGKILL);
    assert_int_equal(run_parse_signal("SIGRTMIN+3", &sig, &e), 0);
    assert_int_equal(sig, SIGRTMIN + 3);
    assert_true(run_parse_signal("0", &sig, &e) < 0);
    assert_true(run_parse_signal("99", &sig, &e) < 0);
    assert_true(run_parse_signal("SIG", &sig, &e) < 0);
}

static void test_volumes(void **state)
{
    static const struct {
        const char *text;
        bool is_mount, works;
    } cases[] = {
        {"/tmp:/x", false, true},
        {"/tmp:/x/:ro", false, true},
        {"/tmp:/x:ro,rslave", false, true},
        {"/tmp:/dev/x", false, true},
        {".:/x", false, true},
        {"/tmp", false, false},
        {"/tmp:", false, false},
        {":/x", false, false},
        {"/tmp:x", false, false},
        {"/tmp:/", false, false},
        {"/tmp://", false, false},
        {"/tmp:/x/../..", false, false},
        {"/tmp:/x/..", false, false},
        {"/tmp:/proc", false, false},
        {"/tmp:/proc/sys", false, false},
        {"/tmp:/x:bad", false, false},
        {"name:/x", false, false},
        {"/does/not/exist:/x", false, false},
        {"type=bind,source=/tmp,destination=/x,readonly", true, true},
        {"type=bind,src=/tmp,dst=/x,bind-propagation=rshared", true, true},
        {"type=tmpfs,destination=/x,tmpfs-size=1m,tmpfs-mode=700", true, true},
        {"type=tmpfs,destination=/x,tmpfs-size=0", true, false},
        {"type=tmpfs,destination=/x,tmpfs-mode=9", true, false},
        {"type=tmpfs,source=/a,destination=/x", true, false},
        {"type=overlay,source=/a,destination=/x", true, false},
        {"type=bind,source=/tmp", true, false},
        {"type=bind,destination=/x", true, false},
        {"type=bind,source=/tmp,destination=/x,X-containerd.a=1", true, false},
        {"", true, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(mount_list_done) struct mount_list l = {};
        struct err e = ERR_INIT;
        int r = cases[i].is_mount ? volume_parse_mount(cases[i].text, &l, &e)
                                  : volume_parse(cases[i].text, &l, &e);

        if ((r == 0) != cases[i].works)
            fail_msg("%s: %s", cases[i].text, e.msg);
        assert_int_equal(l.n, cases[i].works ? 1 : 0);
        if (r == 0)
            assert_true(l.mounts[0].target[0] == '/' && !str_has_suffix(l.mounts[0].target, "/"));
    }
}

static void test_env(void **state)
{
    _cleanup_(strv_freep) char **env = NULL;
    struct err e = ERR_INIT;

    setenv("WHERRY_TEST_OWN", "mine", 1);
    unsetenv("WHERRY_TEST_NONE");
    assert_int_equal(env_add_lines(&env,
                                   "# comment\n\nA=1\r\n  B=two words = x\nA=3\nWHERRY_TEST_OWN\n"
                                   "WHERRY_TEST_NONE\nEMPTY=",
                                   "file", &e),
                     0);
    assert_int_equal(strv_len(env), 4);
    assert_string_equal(env[0], "A=3");
    assert_string_equal(env[1], "B=two words = x");
    assert_string_equal(env[2], "WHERRY_TEST_OWN=mine");
    assert_string_equal(env[3], "EMPTY=");
    assert_string_equal(env_get(env, "A"), "3");
    assert_null(env_get(env, "AB"));
    assert_true(env_add(&env, "=x", &e) < 0);
    assert_true(env_add(&env, "", &e) < 0);
    assert_true(env_add_lines(&env, "X=1\nmy name=x\n", "file", &e) < 0);
    assert_non_null(strstr(e.msg, "file, line 2"));
}

static int make(struct run_options *o, struct run_plan *p, struct err *e)
{
    return run_plan_make(o, "default", p, e);
}

static void test_plan(void **state)
{
    char *drop[] = {(char *)"ALL", NULL}, *add[] = {(char *)"net_admin", (char *)"CAP_CHOWN", NULL};
    struct run_options o = {
        .memory = "64m", .cpus = "1.5", .pids_limit = "10", .cap_drop = drop, .cap_add = add};
    _cleanup_(run_plan_done) struct run_plan p = {};
    struct err e = ERR_INIT;

    assert_int_equal(make(&o, &p, &e), 0);
    assert_int_equal(p.spec.memory_bytes, 64 << 20);
    assert_int_equal(p.spec.cpu_quota_us, 150000);
    assert_int_equal(p.spec.pids_limit, 10);
    assert_int_equal(p.spec.caps, (1 << 12) | (1 << 0));
    assert_int_equal(strlen(p.id), 12);
    assert_string_equal(p.hostname, p.id);
}

static void test_plan_mistakes(void **state)
{
    char *bad_cap[] = {(char *)"NET_ADMINN", NULL}, *bad_label[] = {(char *)"=x", NULL};
    struct run_options cases[] = {
        {.memory = "64q"},     {.memory = "1k"},
        {.pids_limit = "0"},   {.pids_limit = "many"},
        {.network = "bridge"}, {.name = "a b"},
        {.name = "../x"},      {.cap_add = bad_cap},
        {.labels = bad_label}, {.detach = true, .remove = true},
        {.hostname = "a\nb"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(run_plan_done) struct run_plan p = {};
        struct err e = ERR_INIT;

        assert_true(make(&cases[i], &p, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_int_not_equal(e.msg[0], '\0');
    }
}

static int use(struct run_options *o, const struct image_config *config, char **args,
               struct run_plan *p, struct err *e)
{
    int r = make(o, p, e);

    return r < 0 ? r : run_plan_use_image(p, o, config, (int)strv_len(args), args, e);
}

static void test_command(void **state)
{
    char *entrypoint[] = {(char *)"/entry", (char *)"-x", NULL};
    char *cmd[] = {(char *)"default", NULL}, *args[] = {(char *)"given", NULL}, *none[] = {NULL};
    struct image_config config = {.entrypoint = entrypoint, .cmd = cmd}, empty = {};
    struct run_options o = {}, replaced = {.entrypoint = "/other"}, relative = {.cwd = "x"};
    _cleanup_(run_plan_done) struct run_plan a = {}, b = {}, c = {}, d = {}, f = {};
    struct err e = ERR_INIT;

    assert_int_equal(use(&o, &config, none, &a, &e), 0);
    assert_int_equal(strv_len(a.args), 3);
    assert_string_equal(a.args[2], "default");
    assert_string_equal(a.cwd, "/");
    assert_string_equal(a.merged_env[0], SPEC_DEFAULT_PATH);
    assert_int_equal(use(&o, &config, args, &b, &e), 0);
    assert_string_equal(b.args[2], "given");
    assert_int_equal(use(&replaced, &config, none, &c, &e), 0);
    assert_int_equal(strv_len(c.args), 1);
    assert_true(use(&o, &empty, none, &d, &e) < 0);
    assert_true(use(&relative, &config, none, &f, &e) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpus),    cmocka_unit_test(test_signals),
        cmocka_unit_test(test_volumes), cmocka_unit_test(test_env),
        cmocka_unit_test(test_plan),    cmocka_unit_test(test_plan_mistakes),
        cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "shim/runtime_call.h"

static void expect_log(const char *lines, const char *expected)
{
    char text[200];

    bool found = runtime_log_last_error(lines, strlen(lines), text, sizeof(text));
    assert_int_equal(found, expected != NULL);
    if (expected)
        assert_string_equal(text, expected);
}

static void test_log(void **state)
{
    expect_log("", NULL);
    expect_log("garbage\n{\"level\":\"info\",\"msg\":\"x\"}\n", NULL);
    expect_log(
        "{\"level\":\"error\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"last\"}\nxx",
        "last");
    expect_log("{\"level\":\"error\",\"msg\":\"no newline\"}", "no newline");
    expect_log("{\"level\":\"error\",\"msg\":\"a\\u001b[31mred\\n\\tb\"}\n", "a [31mred b");
    expect_log("{\"level\":\"error\",\"msg\":7}\n", NULL);
    expect_log("{\"level\":\"error\",\"msg\":\"\"}\n", NULL);
}

static void test_clean(void **state)
{
    char out[8];

    runtime_clean_text("  a\x01\x02\xff"
                       "b  ",
                       9, out, sizeof(out));
    assert_string_equal(out, "  a b");
    runtime_clean_text("0123456789", 10, out, sizeof(out));
    assert_string_equal(out, "0123456");
    runtime_clean_text("12345\xc3\xa4\xc3\xa4", 9, out, sizeof(out));
    assert_string_equal(out, "12345\xc3\xa4");
    runtime_clean_text("", 0, out, sizeof(out));
    assert_string_equal(out, "");
}

struct fake {
    struct event_loop loop;
    struct reaper reaper;
    struct runtime runtime;
    char dir[32];
    struct err error;
    char output[128];
    bool failed, done;
};

static void on_done(void *userdata, const struct err *e, const char *output)
{
    struct fake *f = userdata;

    f->failed = e != NULL;
    if (e)
        f->error = *e;
    snprintf(f->output, sizeof(f->output), "%s", output);
    f->done = true;
}

/* Runs a shell script in the runtime's place. */
static void run(struct fake *f, const char *script, uint32_t timeout_ms)
{
    struct runtime_args args = {};
    struct runtime_call *call;
    struct err e = ERR_INIT;
    _free_ char *text = str_printf("#!/bin/sh\nlog=$4\n%s\n", script);
    uint64_t give_up = clock_monotonic_ms() + 60000;

    assert_int_equal(
        fs_write_file_atomic(AT_FDCWD, f->runtime.path, text, strlen(text), 0755, false), 0);
    f->done = f->failed = false;
    runtime_args_globals(&args, &f->runtime);
    runtime_args_add(&args, "state");
    assert_int_equal(
        runtime_call_new(
            &f->reaper, &f->runtime,
            &(struct runtime_request){.command = "state", .args = &args, .timeout_ms = timeout_ms},
            on_done, f, &call, &e),
        0);
    while (!f->done && clock_monotonic_ms() < give_up)
        event_loop_turn(&f->loop, 100);
    assert_true(f->done);
}

static void test_calls(void **state)
{
    struct fake f = {.dir = "/tmp/test-runtime-XXXXXX"};

    assert_non_null(mkdtemp(f.dir));
    assert_int_equal(event_loop_init(&f.loop), 0);
    reaper_init(&f.reaper, &f.loop);
    f.runtime = (struct runtime){.path = fs_join(f.dir, "runtime"),
                                 .root = strdup("/root"),
                                 .bundle = strdup(f.dir),
                                 .log = fs_join(f.dir, "log.json"),
                                 .program = RUNTIME_PROGRAM_NULL};
    list_init(&f.runtime.calls);
    run(&f, "echo fine", 5000);
    assert_false(f.failed);
    assert_string_equal(f.output, "fine\n");
    run(&f, "echo '{\"level\":\"error\",\"msg\":\"from the log\"}' >> $log; exit 1", 5000);
    assert_true(f.failed);
    assert_string_equal(f.error.msg, "from the log");
    /* The error before is not repeated. */
    run(&f, "echo printed; echo too >&2; exit 3", 5000);
    assert_non_null(strstr(f.error.msg, "did not terminate successfully: exit status 3: printed"));
    run(&f, "kill -SEGV $$", 5000);
    assert_non_null(strstr(f.error.msg, "signal 11"));
    run(&f, "sleep 100", 100);
    assert_int_equal(f.error.code, ERR_DEADLINE_EXCEEDED);
    run(&f, "while :; do echo on and on >&2; done", 100);
    assert_int_equal(f.error.code, ERR_DEADLINE_EXCEEDED);
    /* A log that is none does not stop it, and nothing is written through a link. */
    _free_ char *victim = fs_join(f.dir, "victim");
    unlink(f.runtime.log);
    assert_int_equal(symlink(victim, f.runtime.log), 0);
    run(&f, "echo '{\"level\":\"error\",\"msg\":\"again\"}' >> $log; exit 1", 5000);
    assert_string_equal(f.error.msg, "again");
    assert_false(fs_exists(AT_FDCWD, victim));
    unlink(f.runtime.log);
    assert_int_equal(mkdir(f.runtime.log, 0755), 0);
    run(&f, "echo '{\"level\":\"error\",\"msg\":\"once more\"}' >> $log; exit 1", 5000);
    assert_string_equal(f.error.msg, "once more");
    /* What it has started goes with it: at its deadline, and when it fails. */
    run(&f, "(sleep 0.3; echo late > $log.late) & wait", 100);
    assert_int_equal(f.error.code, ERR_DEADLINE_EXCEEDED);
    run(&f, "(sleep 0.3; echo late > $log.late) & exit 1", 5000);
    assert_true(f.failed);
    usleep(500000);
    _free_ char *late = str_printf("%s.late", f.runtime.log);
    assert_false(fs_exists(AT_FDCWD, late));
    run(&f, "head -c 1000000 /dev/zero; sleep 1 & exit 0", 5000);
    assert_false(f.failed);

    reaper_done(&f.reaper);
    event_loop_done(&f.loop);
    runtime_done(&f.runtime);
    assert_int_equal(fs_rm_rf(AT_FDCWD, f.dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "base/fs.h"
#include "oci/exit_record.h"

static int make_bundle(void **state)
{
    char template[] = "/tmp/test-exit-record-XXXXXX";
    *state = strdup(mkdtemp(template));
    return *state ? 0 : -1;
}

static int remove_bundle(void **state)
{
    fs_rm_rf(AT_FDCWD, *state);
    free(*state);
    return 0;
}

static void test_round_trip(void **state)
{
    struct exit_record in = {.pid = 4242, .status = 137, .at = {1700000000, 999999999}}, out;

    assert_int_equal(exit_record_read(*state, NULL, &out), -ENOENT);
    assert_int_equal(exit_record_write(*state, NULL, &in), 0);
    assert_int_equal(exit_record_write(*state, "e1", &in), 0);
    in.status = 0;
    assert_int_equal(exit_record_write(*state, "e1", &in), 0);
    assert_int_equal(exit_record_read(*state, NULL, &out), 0);
    assert_int_equal(out.pid, 4242);
    assert_int_equal(out.status, 137);
    assert_int_equal(out.at.tv_sec, 1700000000);
    assert_int_equal(out.at.tv_nsec, 999999999);
    assert_int_equal(exit_record_read(*state, "e1", &out), 0);
    assert_int_equal(out.status, 0);
    assert_int_equal(exit_record_remove(*state, "e1"), 0);
    assert_int_equal(exit_record_remove(*state, "e1"), 0);
    assert_int_equal(exit_record_read(*state, "e1", &out), -ENOENT);
}

static void test_garbage(void **state)
{
    static const char *const texts[] = {
        "",           "\n",         "1 2 3",
        "1 2 3 4",    "0 0 1 1\n",  "1 2 3 4\nx",
        "-1 2 3 4\n", "1 -2 3 4\n", "1 2 3 1000000000\n",
        "1 2  3 4\n", "a b c d\n",  "4294967296 1 1 1\n",
    };
    char dir[PATH_MAX], file[PATH_MAX];
    struct exit_record out;

    snprintf(dir, sizeof(dir), "%s/exits", (char *)*state);
    snprintf(file, sizeof(file), "%s/exits/init", (char *)*state);
    assert_int_equal(mkdir(dir, 0700), 0);
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_int_equal(
            fs_write_file_atomic(AT_FDCWD, file, texts[i], strlen(texts[i]), 0600, false), 0);
        assert_int_equal(exit_record_read(*state, NULL, &out), -EBADMSG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, make_bundle, remove_bundle),
        cmocka_unit_test_setup_teardown(test_garbage, make_bundle, remove_bundle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

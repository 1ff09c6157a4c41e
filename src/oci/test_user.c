/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "oci/user.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
                             "# bob:x:7:7::/:\n"
                             "bob:x:1000:1001:Bob:/home/bob:/bin/sh\n"
                             "4294967296:x:0:0::/:\n"
                             "big:x:4294967296:0::/:\n"
                             "short:x:5\n"
                             "last:x:9:9::/:";
static const char group[] = "root:x:0:\n"
                            "disk:x:6:root,bob\n"
                            "wheel:x:10:alice,bob\n"
                            "bobby:x:11:bobby,rob\n"
                            "bob:x:1001:\n";

static void check(const char *user, uint32_t uid, uint32_t gid, size_t n, const uint32_t *gids)
{
    _cleanup_(user_done) struct user u = {};
    struct err e = ERR_INIT;

    if (user_resolve_text(user, passwd, group, &u, &e) < 0)
        fail_msg("%s: %s", user, e.msg);
    assert_int_equal(u.uid, uid);
    assert_int_equal(u.gid, gid);
    assert_int_equal(u.n_gids, n);
    assert_memory_equal(u.gids, gids, n * sizeof(*gids));
}

#define CHECK(user, uid, gid, ...)                                              \
    check(user, uid, gid, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), \
          (uint32_t[]){__VA_ARGS__})

static void test_names_and_numbers(void **state)
{
    CHECK("", 0, 0, 0, 6);
    CHECK("root", 0, 0, 0, 6);
    CHECK("0", 0, 0, 0, 6);
    CHECK("bob", 1000, 1001, 6, 10, 1001);
    CHECK("1000", 1000, 1001, 6, 10, 1001);
    CHECK("bob:wheel", 1000, 10, 10);
    CHECK("1000:6", 1000, 6, 6);
    CHECK("77", 77, 0, 0);
    CHECK("0077:0010", 77, 10, 10);
    CHECK("2147483647:2147483647", 2147483647, 2147483647, 2147483647);
    CHECK("last", 9, 9, 9);
}

static void test_refused(void **state)
{
    static const char *const users[] = {
        "2147483648",
        "4294967296",
        "18446744073709551616",
        "0:2147483648",
        "-1",
        "+0",
        "0x0",
        "nobody",
        "bob:nobody",
        "big",
        "short",
        " 0",
        "bob:",
        ":x",
        "\xd9\xa0",
        "65536:-1",
        "99999999999999999999999999",
    };

    for (size_t i = 0; i < sizeof(users) / sizeof(*users); i++) {
        _cleanup_(user_done) struct user u = {};
        struct err e = ERR_INIT;

        if (user_resolve_text(users[i], passwd, group, &u, &e) == 0)
            fail_msg("\"%s\" became %u:%u", users[i], u.uid, u.gid);
    }
}

static void test_without_files(void **state)
{
    _cleanup_(user_done) struct user a = {}, b = {}, c = {};
    struct err e = ERR_INIT;

    assert_int_equal(user_resolve("", NULL, &a, &e), 0);
    assert_int_equal(user_resolve("5:6", NULL, &b, &e), 0);
    assert_int_equal(b.gid, 6);
    assert_true(user_resolve("bob", NULL, &c, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_numbers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_without_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

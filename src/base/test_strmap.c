/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "base/strmap.h"

static void sets_and_unsets(void **state)
{
    _cleanup_(strmap_done) struct strmap m = {};

    assert_null(strmap_get(&m, "a"));
    assert_false(strmap_unset(&m, "a"));
    assert_int_equal(strmap_set(&m, "b", "2"), 0);
    assert_int_equal(strmap_set(&m, "a", "1"), 0);
    assert_int_equal(strmap_set(&m, "c", "3"), 0);
    assert_int_equal(strmap_set(&m, "b", "two"), 0);
    assert_int_equal(m.n, 3);
    assert_string_equal(strmap_get(&m, "b"), "two");
    char keys[8] = "";
    size_t n = 0;
    STRMAP_FOREACH (e, &m)
        keys[n++] = e->key[0];
    assert_string_equal(keys, "abc");
    assert_true(strmap_unset(&m, "a"));
    assert_null(strmap_get(&m, "a"));
    assert_int_equal(m.n, 2);
    /* A value of the map itself may be set again. */
    assert_int_equal(strmap_set(&m, "c", strmap_get(&m, "c")), 0);
    assert_string_equal(strmap_get(&m, "c"), "3");
}

static void copies(void **state)
{
    _cleanup_(strmap_done) struct strmap a = {}, b = {};

    assert_int_equal(strmap_set(&a, "k", "v"), 0);
    assert_int_equal(strmap_set(&b, "old", "v"), 0);
    assert_int_equal(strmap_copy(&b, &a), 0);
    assert_int_equal(strmap_copy(&b, &b), 0);
    assert_int_equal(b.n, 1);
    assert_string_equal(strmap_get(&b, "k"), "v");
}

static void is_capped(void **state)
{
    _cleanup_(strmap_done) struct strmap m = {};
    char key[16];

    for (int i = 0; i < STRMAP_MAX; i++) {
        snprintf(key, sizeof(key), "%06d", i);
        assert_int_equal(strmap_set(&m, key, ""), 0);
    }
    assert_int_equal(strmap_set(&m, "one more", ""), -ENOBUFS);
    assert_int_equal(strmap_set(&m, "000000", "replaced"), 0);
    assert_int_equal(m.n, STRMAP_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_and_unsets),
        cmocka_unit_test(copies),
        cmocka_unit_test(is_capped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

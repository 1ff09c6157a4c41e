/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/any.h"

static void holds_bytes(void **state)
{
    _cleanup_(any_done) struct any a = {}, b = {};

    assert_true(any_is_empty(&a));
    assert_int_equal(any_set(&a, "example.Type", "\0x", 2), 0);
    assert_false(any_is_empty(&a));
    assert_int_equal(any_copy(&b, &a), 0);
    /* From itself, and over what was there. */
    assert_int_equal(any_copy(&b, &b), 0);
    assert_int_equal(any_set(&a, "", NULL, 0), 0);
    assert_true(any_is_empty(&a));
    assert_string_equal(b.type_url, "example.Type");
    assert_int_equal(b.value_len, 2);
    assert_memory_equal(b.value, "\0x", 2);
}

static void maps_are_sorted(void **state)
{
    _cleanup_(anymap_done) struct anymap m = {}, copy = {};
    _cleanup_(any_done) struct any v = {};
    static const char *const keys[] = {"m", "z", "a", "m"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        assert_int_equal(any_set(&v, "t", &i, sizeof(i)), 0);
        assert_int_equal(anymap_set(&m, keys[i], &v), 0);
    }
    assert_int_equal(m.n, 3);
    assert_string_equal(m.entries[0].key, "a");
    assert_string_equal(m.entries[2].key, "z");
    size_t i = 3;
    assert_memory_equal(anymap_get(&m, "m")->value, &i, sizeof(i));
    assert_null(anymap_get(&m, "b"));
    assert_int_equal(anymap_copy(&copy, &m), 0);
    assert_int_equal(anymap_copy(&copy, &copy), 0);
    assert_true(anymap_unset(&m, "a"));
    assert_false(anymap_unset(&m, "a"));
    assert_int_equal(m.n, 2);
    assert_int_equal(copy.n, 3);
    assert_non_null(anymap_get(&copy, "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_bytes),
        cmocka_unit_test(maps_are_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

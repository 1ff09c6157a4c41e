/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/map.h"

static void adds_sets_removes(void **state)
{
    _cleanup_(map_done) struct map m = MAP_INIT;
    int one = 1, two = 2;

    assert_null(map_get(&m, "x"));
    assert_null(map_remove(&m, "x"));
    assert_int_equal(map_add(&m, "x", &one), 0);
    assert_int_equal(map_add(&m, "x", &two), -EEXIST);
    assert_ptr_equal(map_get(&m, "x"), &one);
    assert_int_equal(map_set(&m, "x", &two), 0);
    assert_int_equal(map_set(&m, "", &one), 0);
    assert_ptr_equal(map_get(&m, ""), &one);
    assert_ptr_equal(map_remove(&m, "x"), &two);
    assert_null(map_get(&m, "x"));
    assert_int_equal(m.n, 1);
}

static void iterates_in_order_while_removing(void **state)
{
    _cleanup_(map_done) struct map m = MAP_INIT;
    static char keys[100][8];
    size_t seen = 0;

    for (size_t i = 0; i < 100; i++) {
        snprintf(keys[i], sizeof(keys[i]), "k%zu", i);
        assert_int_equal(map_add(&m, keys[i], keys[i]), 0);
    }
    MAP_FOREACH (e, &m) {
        assert_string_equal(e->key, keys[seen]);
        assert_ptr_equal(e->value, keys[seen]);
        map_remove(&m, keys[seen]);
        seen++;
    }
    assert_int_equal(seen, 100);
    assert_int_equal(m.n, 0);
    MAP_FOREACH (e, &m)
        fail();
}

/* Against the plainest model: an array of what must be there. */
static void agrees_with_a_model(void **state)
{
    _cleanup_(map_done) struct map m = MAP_INIT;
    static bool there[500];
    uint32_t x = 12345;
    char key[16];

    for (int step = 0; step < 200000; step++) {
        x = x * 1664525 + 1013904223;
        size_t i = (x >> 8) % ARRAY_SIZE(there);
        snprintf(key, sizeof(key), "key-number-%zu", i);
        if (x >> 31) {
            assert_int_equal(map_add(&m, key, &there[i]), there[i] ? -EEXIST : 0);
            there[i] = true;
        } else {
            assert_ptr_equal(map_remove(&m, key), there[i] ? (void *)&there[i] : NULL);
            there[i] = false;
        }
    }
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(there); i++) {
        snprintf(key, sizeof(key), "key-number-%zu", i);
        assert_ptr_equal(map_get(&m, key), there[i] ? (void *)&there[i] : NULL);
        n += there[i];
    }
    assert_int_equal(m.n, n);
    assert_true(m.allocated <= 2048); /* holes are reclaimed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_sets_removes),
        cmocka_unit_test(iterates_in_order_while_removing),
        cmocka_unit_test(agrees_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire/grpc_account.h"

static void test_one_account_a_process(_unused_ void **state)
{
    struct list accounts;
    struct grpc_account *a, *b, *c;

    list_init(&accounts);
    assert_int_equal(grpc_account_connect(&accounts, 1, &a), 0);
    assert_int_equal(grpc_account_connect(&accounts, 2, &b), 0);
    assert_int_equal(grpc_account_connect(&accounts, 1, &c), 0);
    assert_ptr_equal(a, c);
    assert_ptr_not_equal(a, b);
    grpc_account_disconnect(a);
    grpc_account_disconnect(b);
    grpc_account_disconnect(c);
    assert_true(list_is_empty(&accounts));
}

static void test_bytes(_unused_ void **state)
{
    struct list accounts;
    struct grpc_account *a;

    list_init(&accounts);
    assert_int_equal(grpc_account_connect(&accounts, 1, &a), 0);
    assert_true(grpc_account_charge(a, GRPC_CLIENT_MAX_BYTES));
    assert_false(grpc_account_charge(a, 1));
    grpc_account_refund(a, 10);
    assert_false(grpc_account_charge(a, 11));
    assert_true(grpc_account_charge(a, 10));
    grpc_account_disconnect(a);
}

/* A call keeps the account alive when its connection is gone, and a new connection has a new one.
 */
static void test_calls(_unused_ void **state)
{
    struct list accounts;
    struct grpc_account *a, *b;

    list_init(&accounts);
    assert_int_equal(grpc_account_connect(&accounts, 1, &a), 0);
    for (int i = 0; i < GRPC_CLIENT_MAX_CALLS; i++)
        assert_true(grpc_account_open_call(a));
    assert_false(grpc_account_open_call(a));
    grpc_account_disconnect(a);
    assert_int_equal(grpc_account_connect(&accounts, 1, &b), 0);
    for (int i = 0; i < GRPC_CLIENT_MAX_CALLS; i++)
        grpc_account_close_call(a);
    grpc_account_disconnect(b);
}

static void test_connections(_unused_ void **state)
{
    struct list accounts;
    struct grpc_account *a = NULL, *b;

    list_init(&accounts);
    for (int i = 0; i < GRPC_CLIENT_MAX_CONNECTIONS; i++)
        assert_int_equal(grpc_account_connect(&accounts, 1, &a), 0);
    assert_int_equal(grpc_account_connect(&accounts, 1, &b), -EUSERS);
    assert_int_equal(grpc_account_connect(&accounts, 2, &b), 0);
    grpc_account_disconnect(b);
    for (int i = 0; i < GRPC_CLIENT_MAX_CONNECTIONS; i++)
        grpc_account_disconnect(a);
    assert_true(list_is_empty(&accounts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_account_a_process),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

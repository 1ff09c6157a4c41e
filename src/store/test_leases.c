/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include "store/leases.h"

static const struct strmap none = {};

static void create_list_delete(void **state)
{
    struct test_store *t = *state;
    _cleanup_(strmap_done) struct strmap labels = MAP("containerd.io/gc.flat=yes", "empty=");
    _cleanup_(lease_done) struct lease a = {}, b = {};
    _cleanup_(lease_list_done) struct lease_list all = {}, some = {};
    _cleanup_(filter_freep) struct filter *filter = NULL;
    const char *expression = "labels.\"containerd.io/gc.flat\"==yes,id==named";

    assert_ok(t, lease_create(t->db, "ns", "named", &labels, &a, &t->e));
    assert_true(a.created_at.tv_sec > 0);
    assert_fails(t, lease_create(t->db, "ns", "named", &none, &b, &t->e), ERR_ALREADY_EXISTS,
                 "lease \"named\": already exists");
    assert_ok(t, lease_create(t->db, "ns", "", &none, &b, &t->e));
    assert_true(strlen(b.id) >= 6);
    assert_ok(t, lease_list(t->db, "ns", NULL, &all, &t->e));
    assert_int_equal(all.n, 2);
    assert_ok(t, filter_parse(&expression, 1, &filter, &t->e));
    assert_ok(t, lease_list(t->db, "ns", filter, &some, &t->e));
    assert_int_equal(some.n, 1);
    assert_int_equal(some.leases[0].labels.n, 1);
    assert_ok(t, lease_delete(t->db, "ns", "named", &t->e));
    assert_fails(t, lease_delete(t->db, "ns", "named", &t->e), ERR_NOT_FOUND,
                 "lease \"named\": not found");
    /* A lease is its namespace's alone. */
    assert_true(lease_delete(t->db, "other", b.id, &t->e) < 0);
    assert_int_equal(t->e.code, ERR_NOT_FOUND);
}

static void resources(void **state)
{
    struct test_store *t = *state;
    _cleanup_(lease_done) struct lease l = {};
    _cleanup_(lease_resource_list_done) struct lease_resource_list list = {};

    assert_ok(t, lease_create(t->db, "ns", "l", &none, &l, &t->e));
    assert_ok(t, lease_add_resource(t->db, "ns", "l", "content", DIGEST("a"), &t->e));
    assert_ok(t, lease_add_resource(t->db, "ns", "l", "content", DIGEST("a"), &t->e));
    assert_ok(t, lease_add_resource(t->db, "ns", "l", "snapshots/overlayfs", "key", &t->e));
    assert_ok(t, lease_add_resource(t->db, "ns", "l", "ingests", "ref", &t->e));
    assert_ok(t, lease_list_resources(t->db, "ns", "l", &list, &t->e));
    assert_int_equal(list.n, 3);
    assert_string_equal(list.resources[0].type, "content");
    assert_string_equal(list.resources[2].id, "key");
    assert_ok(t, lease_delete_resource(t->db, "ns", "l", "ingests", "ref", &t->e));
    assert_ok(t, lease_delete_resource(t->db, "ns", "l", "ingests", "ref", &t->e));

    assert_fails(t, lease_add_resource(t->db, "ns", "no", "content", DIGEST("a"), &t->e),
                 ERR_NOT_FOUND, "lease \"no\": not found");
    assert_fails(t, lease_list_resources(t->db, "ns", "no", &list, &t->e), ERR_NOT_FOUND,
                 "lease \"no\": not found");
    assert_fails(t, lease_add_resource(t->db, "ns", "l", "boats", "x", &t->e), ERR_UNIMPLEMENTED,
                 "resource type boats not supported yet: not implemented");
    assert_fails(t, lease_add_resource(t->db, "ns", "l", "content", "x", &t->e),
                 ERR_INVALID_ARGUMENT,
                 "invalid content resource id x: invalid checksum digest format: invalid argument");
    assert_fails(t, lease_add_resource(t->db, "ns", "l", "content/x", "x", &t->e),
                 ERR_INVALID_ARGUMENT, "invalid resource type content/x: invalid argument");
    assert_fails(t, lease_add_resource(t->db, "ns", "l", "snapshots", "x", &t->e),
                 ERR_INVALID_ARGUMENT,
                 "invalid snapshot resource type snapshots: invalid argument");
}

static void attach(void **state)
{
    struct test_store *t = *state;
    _cleanup_(lease_done) struct lease l = {};
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;

    assert_ok(t, lease_create(t->db, "ns", "l", &none, &l, &t->e));
    assert_ok(t, db_begin(t->db, DB_WRITE, &txn, &t->e));
    assert_ok(t, lease_attach(&txn, "ns", "", "content", DIGEST("a"), &t->e));
    assert_ok(t, lease_attach(&txn, "ns", "l", "content", DIGEST("a"), &t->e));
    assert_fails(t, lease_attach(&txn, "ns", "no", "content", DIGEST("a"), &t->e), ERR_NOT_FOUND,
                 "lease does not exist: not found");
    assert_fails(t, lease_attach(&txn, "other", "l", "content", DIGEST("a"), &t->e), ERR_NOT_FOUND,
                 "lease does not exist: not found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(create_list_delete), TEST(resources), TEST(attach)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

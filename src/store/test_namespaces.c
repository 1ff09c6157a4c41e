/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include "store/images.h"
#include "store/leases.h"
#include "store/namespaces.h"

static const struct strmap none = {};

static void create_and_list(void **state)
{
    struct test_store *t = *state;
    _cleanup_(strmap_done) struct strmap labels = MAP("a=1", "b="), back = {};
    _cleanup_(namespace_list_done) struct namespace_list list = {};

    assert_ok(t, namespace_create(t->db, "zeta", &labels, &t->e));
    assert_ok(t, namespace_create(t->db, "alpha", &none, &t->e));
    assert_fails(t, namespace_create(t->db, "alpha", &none, &t->e), ERR_ALREADY_EXISTS,
                 "namespace \"alpha\": already exists");
    assert_ok(t, namespace_list(t->db, &list, &t->e));
    assert_int_equal(list.n, 2);
    assert_string_equal(list.names[0], "alpha");
    assert_ok(t, namespace_labels(t->db, "zeta", &back, &t->e));
    assert_int_equal(back.n, 1);
    assert_string_equal(strmap_get(&back, "a"), "1");
    assert_ok(t, namespace_labels(t->db, "missing", &back, &t->e));
    assert_int_equal(back.n, 0);
}

static void names_are_validated(void **state)
{
    struct test_store *t = *state;
    char value[4097];
    _cleanup_(strmap_done) struct strmap labels = {};

    assert_fails(t, namespace_create(t->db, "", &none, &t->e), ERR_INVALID_ARGUMENT,
                 "identifier must not be empty: invalid argument");
    assert_true(namespace_create(t->db, "../x", &none, &t->e) < 0);
    assert_true(namespace_update(t->db, "a b", &none, NULL, 0, &labels, &t->e) < 0);
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    assert_int_equal(strmap_set(&labels, "k", value), 0);
    assert_fails(t, namespace_create(t->db, "x", &labels, &t->e), ERR_INVALID_ARGUMENT,
                 "namespace.Labels: label key and value length (4097 bytes) greater than maximum "
                 "size (4096 bytes), key: k: invalid argument");
}

static void update(void **state)
{
    struct test_store *t = *state;
    _cleanup_(strmap_done) struct strmap first = MAP("a=1", "c.d=2"), second = MAP("c.d=3", "e="),
                                         back = {};
    const char *paths[] = {"labels.c.d", "labels.a"}, *bad[] = {"labels"};

    assert_ok(t, namespace_update(t->db, "made", &first, NULL, 0, &back, &t->e));
    assert_int_equal(back.n, 2);
    assert_ok(t, namespace_update(t->db, "made", &second, paths, 2, &back, &t->e));
    assert_int_equal(back.n, 1);
    assert_string_equal(strmap_get(&back, "c.d"), "3");
    assert_fails(t, namespace_update(t->db, "made", &second, bad, 1, &back, &t->e),
                 ERR_INVALID_ARGUMENT, "cannot update \"labels\" field");
    assert_ok(t, namespace_update(t->db, "made", &first, NULL, 0, &back, &t->e));
    assert_int_equal(back.n, 2);
}

static void deleted_only_when_empty(void **state)
{
    struct test_store *t = *state;
    struct image image = {.name = (char *)"i",
                          .target = {(char *)"type", (char *)DIGEST("a"), 1, {}}};
    _cleanup_(image_done) struct image stored = {};
    _cleanup_(lease_done) struct lease lease = {};
    _cleanup_(strmap_done) struct strmap labels = MAP("a=1");

    assert_fails(t, namespace_delete(t->db, "ns", &t->e), ERR_NOT_FOUND,
                 "namespace \"ns\": not found");
    assert_ok(t, namespace_create(t->db, "ns", &labels, &t->e));
    assert_ok(t, lease_create(t->db, "ns", "l", &labels, &lease, &t->e));
    assert_ok(t, image_create(t->db, "ns", "", &image, (struct timespec){}, &stored, &t->e));
    _cleanup_(db_txn_done) struct db_txn txn = DB_TXN_INIT;
    assert_ok(t, db_begin(t->db, DB_WRITE, &txn, &t->e));
    assert_ok(t,
              db_exec(&txn, &t->e,
                      "INSERT INTO snapshots (ns, snapshotter, name, kind, created_at, updated_at) "
                      "VALUES ('ns', 'overlayfs', 's', 2, 0, 0), ('ns', 'native', 's', 2, 0, 0)",
                      0, NULL));
    assert_ok(t, db_exec(&txn, &t->e, "INSERT INTO content VALUES ('ns', 'd', 1, 0, 0)", 0, NULL));
    assert_ok(t, db_commit(&txn, &t->e));
    assert_fails(t, namespace_delete(t->db, "ns", &t->e), ERR_FAILED_PRECONDITION,
                 "namespace \"ns\" must be empty, but it still has images, blobs, snapshots on "
                 "\"native\" snapshotter, snapshots on \"overlayfs\" snapshotter: failed "
                 "precondition");
    assert_ok(t, db_begin(t->db, DB_WRITE, &txn, &t->e));
    assert_ok(t, db_exec(&txn, &t->e, "DELETE FROM snapshots", 0, NULL));
    assert_ok(t, db_exec(&txn, &t->e, "DELETE FROM content", 0, NULL));
    assert_ok(t, db_commit(&txn, &t->e));
    assert_ok(t, image_delete(t->db, "ns", "i", "", &t->e));
    assert_ok(t, namespace_delete(t->db, "ns", &t->e));
    _cleanup_(lease_list_done) struct lease_list leases = {};
    assert_ok(t, lease_list(t->db, "ns", NULL, &leases, &t->e));
    assert_int_equal(leases.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_and_list),
        TEST(names_are_validated),
        TEST(update),
        TEST(deleted_only_when_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

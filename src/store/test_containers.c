/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include "store/containers.h"

/* A shallow one on the stack: labels and extensions are the only maps a test fills. */
static struct container make(const char *id)
{
    static uint8_t spec[] = "{}";

    return (struct container){
        .id = (char *)id,
        .runtime_name = (char *)"io.containerd.runc.v2",
        .spec = {(char *)"types.containerd.io/opencontainers/runtime-spec/1/Spec", spec, 2},
    };
}

static void create_and_get(void **state)
{
    struct test_store *t = *state;
    struct container given = make("c1");
    _cleanup_(container_done) struct container back = {}, got = {};
    uint8_t bytes[] = {0, 1, 2};

    given.image = (char *)"img";
    given.snapshotter = (char *)"overlayfs";
    given.snapshot_key = (char *)"c1";
    given.sandbox = (char *)"pod";
    given.runtime_options = (struct any){(char *)"containerd.runc.v1.Options", bytes, 3};
    given.labels = MAP("k=v", "gone=");
    assert_int_equal(anymap_set(&given.extensions, "x", &given.runtime_options), 0);
    assert_ok(t, container_create(t->db, "ns", &given, &back, &t->e));
    assert_true(back.created_at.tv_sec > 0);
    assert_memory_equal(&back.created_at, &back.updated_at, sizeof(back.created_at));
    assert_ok(t, container_get(t->db, "ns", "c1", &got, &t->e));
    assert_string_equal(got.image, "img");
    assert_string_equal(got.sandbox, "pod");
    assert_string_equal(got.snapshot_key, "c1");
    assert_int_equal(got.runtime_options.value_len, 3);
    assert_memory_equal(got.runtime_options.value, bytes, 3);
    assert_memory_equal(got.spec.value, "{}", 2);
    assert_int_equal(got.labels.n, 1);
    assert_int_equal(anymap_get(&got.extensions, "x")->value_len, 3);
    container_done(&back);
    assert_fails(t, container_create(t->db, "ns", &given, &back, &t->e), ERR_ALREADY_EXISTS,
                 "container \"c1\": already exists");
    assert_fails(t, container_get(t->db, "other", "c1", &back, &t->e), ERR_NOT_FOUND,
                 "container \"c1\" in namespace \"other\": not found");
    strmap_done(&given.labels);
    anymap_done(&given.extensions);
}

static void validation(void **state)
{
    struct test_store *t = *state;
    struct container c = make(""), back = {};

    assert_fails(t, container_create(t->db, "ns", &c, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "create container failed validation: container.ID: identifier must not be empty: "
                 "invalid argument");
    c = make("a");
    c.runtime_name = NULL;
    assert_fails(t, container_create(t->db, "ns", &c, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "create container failed validation: container.Runtime.Name must be set: invalid "
                 "argument");
    c = make("a");
    c.spec = (struct any){};
    assert_fails(
        t, container_create(t->db, "ns", &c, &back, &t->e), ERR_INVALID_ARGUMENT,
        "create container failed validation: container.Spec must be set: invalid argument");
    c = make("a");
    c.snapshot_key = (char *)"k";
    assert_fails(t, container_create(t->db, "ns", &c, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "create container failed validation: container.Snapshotter must be set if "
                 "container.SnapshotKey is set: invalid argument");
    c = make("a");
    assert_int_equal(anymap_set(&c.extensions, "", &c.spec), 0);
    assert_fails(t, container_create(t->db, "ns", &c, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "create container failed validation: container.Extension keys must not be "
                 "zero-length: invalid argument");
    anymap_done(&c.extensions);
}

static void update(struct test_store *t, const struct container *given, const char *path,
                   struct container *ret)
{
    container_done(ret);
    assert_ok(t, container_update(t->db, "ns", given, &path, 1, ret, &t->e));
}

static void masks(void **state)
{
    struct test_store *t = *state;
    struct container first = make("c"), second = make("c");
    _cleanup_(container_done) struct container back = {};
    uint8_t bytes[] = "xyz";
    struct any x = {(char *)"x", bytes, 3};
    const char *bad = "runtime";

    first.labels = MAP("a=1", "containerd.io/restart.status=running");
    second.labels = MAP("containerd.io/restart.status=stopped");
    second.image = (char *)"new";
    second.spec.value = bytes;
    second.spec.value_len = 3;
    assert_int_equal(anymap_set(&second.extensions, "e.f", &x), 0);

    assert_fails(t, container_update(t->db, "ns", &first, NULL, 0, &back, &t->e), ERR_NOT_FOUND,
                 "cannot update container \"c\" in namespace \"ns\": not found");
    assert_ok(t, container_create(t->db, "ns", &first, &back, &t->e));
    struct timespec created = back.created_at;
    struct container other = make("d");
    container_done(&back);
    assert_fails(t, container_update(t->db, "ns", &other, NULL, 0, &back, &t->e), ERR_NOT_FOUND,
                 "container \"d\": not found");

    update(t, &second, "labels.containerd.io/restart.status", &back);
    assert_string_equal(strmap_get(&back.labels, "containerd.io/restart.status"), "stopped");
    assert_string_equal(strmap_get(&back.labels, "a"), "1");
    assert_string_equal(back.image, "");
    update(t, &second, "labels.a", &back);
    assert_null(strmap_get(&back.labels, "a"));
    update(t, &second, "image", &back);
    assert_string_equal(back.image, "new");
    update(t, &second, "extensions.e.f", &back);
    assert_int_equal(back.extensions.n, 1);
    update(t, &second, "spec", &back);
    assert_int_equal(back.spec.value_len, 3);
    assert_memory_equal(&back.created_at, &created, sizeof(created));
    assert_true(back.updated_at.tv_sec > created.tv_sec ||
                back.updated_at.tv_nsec > created.tv_nsec);

    container_done(&back);
    assert_fails(t, container_update(t->db, "ns", &second, &bad, 1, &back, &t->e),
                 ERR_INVALID_ARGUMENT,
                 "cannot update \"runtime\" field on \"c\": invalid argument");
    second.runtime_name = (char *)"other";
    assert_fails(t, container_update(t->db, "ns", &second, NULL, 0, &back, &t->e),
                 ERR_INVALID_ARGUMENT,
                 "container.Runtime.Name field is immutable: invalid argument");
    second.runtime_name = first.runtime_name;
    second.snapshotter = (char *)"native";
    assert_fails(t, container_update(t->db, "ns", &second, NULL, 0, &back, &t->e),
                 ERR_INVALID_ARGUMENT,
                 "container.Snapshotter field is immutable: invalid argument");
    /* All that can change is replaced at once. */
    assert_ok(t, container_update(t->db, "ns", &first, NULL, 0, &back, &t->e));
    assert_string_equal(back.image, "");
    assert_int_equal(back.extensions.n, 0);
    assert_int_equal(back.labels.n, 2);
    strmap_done(&first.labels);
    strmap_done(&second.labels);
    anymap_done(&second.extensions);
}

static size_t matches(struct test_store *t, const char *expression)
{
    _cleanup_(filter_freep) struct filter *filter = NULL;
    _cleanup_(container_list_done) struct container_list list = {};

    assert_ok(t, filter_parse(&expression, 1, &filter, &t->e));
    assert_ok(t, container_list(t->db, "ns", filter, &list, &t->e));
    return list.n;
}

static void list_and_filters(void **state)
{
    struct test_store *t = *state;
    _cleanup_(container_list_done) struct container_list list = {};
    struct container back = {};

    for (int i = 9; i >= 0; i--) {
        char id[8];
        struct container c;
        snprintf(id, sizeof(id), "c%d", i);
        c = make(id);
        c.image = (char *)(i % 2 ? "odd" : "even");
        assert_ok(t, container_create(t->db, "ns", &c, &back, &t->e));
        container_done(&back);
    }
    assert_ok(t, container_list(t->db, "ns", NULL, &list, &t->e));
    assert_int_equal(list.n, 10);
    assert_string_equal(list.containers[0].id, "c0");
    assert_string_equal(list.containers[9].id, "c9");
    assert_int_equal(matches(t, "id==c3"), 1);
    assert_int_equal(matches(t, "image==odd"), 5);
    assert_int_equal(matches(t, "image==odd,id~=\"c[0-4]\""), 2);
    assert_int_equal(matches(t, "runtime.name==io.containerd.runc.v2"), 10);
    assert_int_equal(matches(t, "labels.x"), 0);
}

static void delete (void **state)
{
    struct test_store *t = *state;
    struct container c = make("c"), back = {};

    assert_fails(t, container_delete(t->db, "ns", "c", &t->e), ERR_NOT_FOUND,
                 "cannot delete container \"c\" in namespace \"ns\": not found");
    assert_ok(t, container_create(t->db, "ns", &c, &back, &t->e));
    container_done(&back);
    assert_fails(t, container_delete(t->db, "ns", "d", &t->e), ERR_NOT_FOUND,
                 "container d: not found");
    assert_ok(t, container_delete(t->db, "ns", "c", &t->e));
    assert_fails(t, container_get(t->db, "ns", "c", &back, &t->e), ERR_NOT_FOUND,
                 "container \"c\" in namespace \"ns\": not found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_and_get), TEST(validation), TEST(masks), TEST(list_and_filters), TEST(delete),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store/test_store.h"

#include "store/images.h"
#include "store/leases.h"

static const struct timespec now = {};

/* A shallow one on the stack; only the maps are owned. */
static struct image make(const char *name, const char *digest)
{
    return (struct image){.name = (char *)name,
                          .target = {(char *)"application/x", (char *)digest, 7, {}}};
}

static void create_and_get(void **state)
{
    struct test_store *t = *state;
    struct image given = make("docker.io/library/a:1", DIGEST("a"));
    _cleanup_(image_done) struct image back = {}, got = {};

    given.labels = MAP("k=v", "gone=");
    given.target.annotations = MAP("org.x=\"quoted\" \xc3\xa9");
    assert_ok(t, image_create(t->db, "ns", "", &given, now, &back, &t->e));
    assert_true(back.created_at.tv_sec > 0);
    assert_ok(t, image_get(t->db, "ns", given.name, &got, &t->e));
    assert_string_equal(got.target.digest, DIGEST("a"));
    assert_string_equal(got.target.media_type, "application/x");
    assert_int_equal(got.target.size, 7);
    assert_string_equal(strmap_get(&got.target.annotations, "org.x"), "\"quoted\" \xc3\xa9");
    assert_int_equal(got.labels.n, 1);
    assert_fails(t, image_create(t->db, "ns", "", &given, now, &back, &t->e), ERR_ALREADY_EXISTS,
                 "image \"docker.io/library/a:1\": already exists");
    image_done(&got);
    assert_fails(t, image_get(t->db, "other", given.name, &got, &t->e), ERR_NOT_FOUND,
                 "image \"docker.io/library/a:1\": not found");
    strmap_done(&given.labels);
    strmap_done(&given.target.annotations);
}

static void targets_are_validated(void **state)
{
    struct test_store *t = *state;
    struct image i = make("", DIGEST("a"));
    struct image back = {};

    assert_fails(t, image_create(t->db, "ns", "", &i, now, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "image name must not be empty: invalid argument");
    i = make("i", "sha256:12");
    assert_fails(t, image_create(t->db, "ns", "", &i, now, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "Target.Digest \"sha256:12\" invalid: invalid checksum digest length: invalid "
                 "argument");
    i = make("i", DIGEST("a"));
    i.target.size = 0;
    assert_fails(t, image_create(t->db, "ns", "", &i, now, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "Target.Size must be greater than zero: invalid argument");
    i = make("i", DIGEST("a"));
    i.target.media_type = NULL;
    assert_fails(t, image_create(t->db, "ns", "", &i, now, &back, &t->e), ERR_INVALID_ARGUMENT,
                 "Target.MediaType must be set: invalid argument");
    i = make("i", DIGEST("a"));
    assert_fails(t, image_create(t->db, "ns", "lost", &i, now, &back, &t->e), ERR_NOT_FOUND,
                 "lease does not exist: not found");
    /* The failure has left nothing. */
    assert_fails(t, image_get(t->db, "ns", "i", &back, &t->e), ERR_NOT_FOUND,
                 "image \"i\": not found");
}

static void update(struct test_store *t, const struct image *given, const char *path,
                   struct image *ret)
{
    image_done(ret);
    assert_ok(t, image_update(t->db, "ns", "", given, &path, 1, now, ret, &t->e));
}

static void masks(void **state)
{
    struct test_store *t = *state;
    struct image first = make("i", DIGEST("a")), second = make("i", DIGEST("b"));
    _cleanup_(image_done) struct image back = {};
    const char *bad = "name";

    first.labels = MAP("a=1", "b.c=2");
    second.labels = MAP("b.c=3", "d=4");
    second.target.annotations = MAP("x=y");
    assert_fails(t, image_update(t->db, "ns", "", &first, NULL, 0, now, &back, &t->e),
                 ERR_NOT_FOUND, "image \"i\": not found");
    assert_ok(t, image_create(t->db, "ns", "", &first, now, &back, &t->e));
    struct timespec created = back.created_at;

    update(t, &second, "labels.b.c", &back);
    assert_string_equal(strmap_get(&back.labels, "b.c"), "3");
    assert_string_equal(strmap_get(&back.labels, "a"), "1");
    update(t, &second, "labels.a", &back);
    assert_null(strmap_get(&back.labels, "a"));
    assert_null(strmap_get(&back.labels, "d"));
    update(t, &second, "annotations.x", &back);
    assert_string_equal(strmap_get(&back.target.annotations, "x"), "y");
    assert_string_equal(back.target.digest, DIGEST("a"));
    update(t, &second, "target", &back);
    assert_string_equal(back.target.digest, DIGEST("b"));
    assert_fails(t, image_update(t->db, "ns", "", &second, &bad, 1, now, &back, &t->e),
                 ERR_INVALID_ARGUMENT,
                 "cannot update \"name\" field on image \"i\": invalid argument");
    image_done(&back);
    assert_ok(t, image_update(t->db, "ns", "", &first, NULL, 0, now, &back, &t->e));
    assert_string_equal(back.target.digest, DIGEST("a"));
    assert_int_equal(back.labels.n, 2);
    assert_int_equal(back.target.annotations.n, 0);
    assert_int_equal(back.created_at.tv_nsec, created.tv_nsec);
    strmap_done(&first.labels);
    strmap_done(&second.labels);
    strmap_done(&second.target.annotations);
}

static size_t matches(struct test_store *t, const char *expression)
{
    _cleanup_(filter_freep) struct filter *filter = NULL;
    _cleanup_(image_list_done) struct image_list list = {};

    assert_ok(t, filter_parse(&expression, 1, &filter, &t->e));
    assert_ok(t, image_list(t->db, "ns", filter, &list, &t->e));
    return list.n;
}

static void filters(void **state)
{
    struct test_store *t = *state;
    struct image a = make("a", DIGEST("a")), b = make("b", DIGEST("b"));
    struct image back = {};

    a.labels = MAP("x.y/z=1");
    b.target.annotations = MAP("n=m");
    assert_ok(t, image_create(t->db, "ns", "", &a, now, &back, &t->e));
    image_done(&back);
    assert_ok(t, image_create(t->db, "ns", "", &b, now, &back, &t->e));
    image_done(&back);
    assert_int_equal(matches(t, ""), 2);
    assert_int_equal(matches(t, "name==a"), 1);
    assert_int_equal(matches(t, "name!=a"), 1);
    assert_int_equal(matches(t, "name~=\"^[ab]$\""), 2);
    assert_int_equal(matches(t, "labels.\"x.y/z\"==1"), 1);
    assert_int_equal(matches(t, "annotations.n"), 1);
    assert_int_equal(matches(t, "target.digest==\"" DIGEST("b") "\""), 1);
    assert_int_equal(matches(t, "target.mediatype==\"application/x\",name==b"), 1);
    assert_int_equal(matches(t, "nonsense==a"), 0);
    strmap_done(&a.labels);
    strmap_done(&b.target.annotations);
}

static void delete (void **state)
{
    struct test_store *t = *state;
    struct image i = make("i", DIGEST("a")), back = {};

    assert_ok(t, image_create(t->db, "ns", "", &i, (struct timespec){42, 1}, &back, &t->e));
    assert_int_equal(back.created_at.tv_sec, 42);
    image_done(&back);
    assert_fails(t, image_delete(t->db, "ns", "i", DIGEST("b"), &t->e), ERR_NOT_FOUND,
                 "image \"i\" has target " DIGEST("a") ", not " DIGEST("b") ": not found");
    assert_ok(t, image_delete(t->db, "ns", "i", DIGEST("a"), &t->e));
    assert_fails(t, image_delete(t->db, "ns", "i", "", &t->e), ERR_NOT_FOUND,
                 "image \"i\": not found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_and_get), TEST(targets_are_validated), TEST(masks), TEST(filters), TEST(delete),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

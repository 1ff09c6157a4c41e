/* SPDX-License-Identifier: Apache-2.0 */
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "worker/ring.h"

#define CHUNKS 1000

struct reader {
    struct ring *ring;
    unsigned consumer;
    pthread_t thread;
    unsigned seen;
    bool in_order;
    int last;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    const uint8_t *bytes;
    size_t n;

    r->in_order = true;
    while ((r->last = ring_next(r->ring, r->consumer, &bytes, &n)) > 0) {
        unsigned value;
        memcpy(&value, bytes, sizeof(value));
        r->in_order &= value == r->seen && n == sizeof(value) + value % 7;
        r->seen++;
    }
    return NULL;
}

static void produce(struct ring *ring, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint8_t *slot = ring_slot(ring);
        if (!slot)
            return;
        memcpy(slot, &i, sizeof(i));
        ring_publish(ring, sizeof(i) + i % 7);
    }
}

static void test_two_consumers_see_everything(void **state)
{
    struct ring ring;
    struct reader readers[2] = {{.ring = &ring}, {.ring = &ring, .consumer = 1}};

    assert_int_equal(ring_init(&ring, 2), 0);
    for (int i = 0; i < 2; i++)
        pthread_create(&readers[i].thread, NULL, read_all, &readers[i]);
    produce(&ring, CHUNKS);
    ring_end(&ring);
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].seen, CHUNKS);
        assert_true(readers[i].in_order);
        assert_int_equal(readers[i].last, 0);
    }
    ring_done(&ring);
}

static void test_held_slots_are_not_reused(void **state)
{
    struct ring ring;
    const uint8_t *bytes;
    size_t n;

    assert_int_equal(ring_init(&ring, 1), 0);
    produce(&ring, RING_SLOTS);
    assert_int_equal(ring_next(&ring, 0, &bytes, &n), 1);
    /* All slots are taken until the first is left. */
    assert_true(ring.produced - ring.consumed[0] == RING_SLOTS);
    assert_int_equal(ring_next(&ring, 0, &bytes, &n), 1);
    assert_non_null(ring_slot(&ring));
    ring_done(&ring);
}

static void *abort_it(void *arg)
{
    ring_abort(arg);
    return NULL;
}

static void test_abort_wakes_everybody(void **state)
{
    struct ring ring;
    struct reader reader = {.ring = &ring};
    pthread_t thread;

    assert_int_equal(ring_init(&ring, 2), 0);
    pthread_create(&reader.thread, NULL, read_all, &reader);
    pthread_create(&thread, NULL, abort_it, &ring);
    /* Consumer 1 never comes, so this would wait for ever. */
    produce(&ring, 2 * RING_SLOTS);
    pthread_join(thread, NULL);
    pthread_join(reader.thread, NULL);
    assert_int_equal(reader.last, -ECANCELED);
    assert_null(ring_slot(&ring));
    ring_done(&ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_consumers_see_everything),
        cmocka_unit_test(test_held_slots_are_not_reused),
        cmocka_unit_test(test_abort_wakes_everybody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/buf.h"
#include "services.containers.v1.pb-c.h"
#include "ttrpc.pb-c.h"
#include "wire/pb.h"

static int unpack(const ProtobufCMessageDescriptor *d, const void *bytes, size_t n)
{
    ProtobufCMessage *m = NULL;
    struct err e = ERR_INIT;
    int r = pb_unpack(d, bytes, n, &m, &e);

    if (r < 0) {
        assert_null(m);
        assert_true(e.code == ERR_INVALID_ARGUMENT || e.code == ERR_RESOURCE_EXHAUSTED);
    }
    pb_free(m);
    return r;
}

#define REQUEST(text) unpack(&pb__ttrpc__request__descriptor, text, sizeof(text) - 1)

static void good_messages(_unused_ void **state)
{
    assert_int_equal(unpack(&pb__ttrpc__request__descriptor, NULL, 0), 0);
    assert_int_equal(REQUEST("\x0a\x03"
                             "abc\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                     0);
    /* Unknown fields of every wire type. */
    assert_int_equal(REQUEST("\x50\x05\x59"
                             "12345678"
                             "\x62\x01x\x6d"
                             "1234"),
                     0);
}

static void bad_messages(_unused_ void **state)
{
    assert_true(REQUEST("\x0a\x05"
                        "abc") < 0);                                          /* beyond the end */
    assert_true(REQUEST("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") < 0); /* a huge length */
    assert_true(REQUEST("\x0a\x02\xff\xfe") < 0);                             /* not UTF-8 */
    assert_true(REQUEST("\x0a\x03"
                        "a\0b") < 0);                                             /* NUL */
    assert_true(REQUEST("\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") < 0); /* 11 bytes */
    assert_true(REQUEST("\x20") < 0);
    assert_true(REQUEST("\x80") < 0);
    assert_true(REQUEST("\x00\x01") < 0); /* field 0 */
    assert_true(REQUEST("\x0b\x0c") < 0); /* a group */
    assert_true(REQUEST("\x0f") < 0);
    assert_true(REQUEST("\x0d"
                        "123") < 0);
    assert_true(REQUEST("\x08\x01") < 0); /* a number where a string belongs */
}

static void nesting_is_limited(_unused_ void **state)
{
    /* A type that holds itself, as none of the interfaces does. */
    static ProtobufCFieldDescriptor field = {
        .name = "again", .id = 1, .label = PROTOBUF_C_LABEL_NONE, .type = PROTOBUF_C_TYPE_MESSAGE};
    static const unsigned by_name[] = {0};
    static const ProtobufCIntRange ranges[] = {{1, 0}, {0, 1}};
    static ProtobufCMessageDescriptor self = {
        .magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
        .name = "Self",
        .sizeof_message = sizeof(ProtobufCMessage) + sizeof(void *),
        .n_fields = 1,
        .fields = &field,
        .fields_sorted_by_name = by_name,
        .n_field_ranges = 1,
        .field_ranges = ranges,
    };
    field.descriptor = &self;
    field.offset = sizeof(ProtobufCMessage);

    for (size_t depth = 98; depth < 5000; depth = depth < 103 ? depth + 1 : depth * 3) {
        /* Inside out, each level with the length of what it holds. */
        uint8_t bytes[32768];
        size_t at = sizeof(bytes);
        for (size_t i = 1; i < depth; i++) {
            size_t n = sizeof(bytes) - at;
            if (n >= 128) {
                bytes[--at] = (uint8_t)(n >> 7);
                bytes[--at] = (uint8_t)(n & 0x7f) | 0x80;
            } else {
                bytes[--at] = (uint8_t)n;
            }
            bytes[--at] = 0x0a;
        }
        assert_int_equal(unpack(&self, bytes + at, sizeof(bytes) - at) == 0, depth <= PB_DEPTH_MAX);
    }
}

static void small_parts_are_limited(_unused_ void **state)
{
    size_t n = 4 << 20;
    _free_ char *bytes = malloc(n);

    /* Empty metadata, two bytes each. */
    for (size_t i = 0; i < n; i += 2)
        memcpy(bytes + i, "\x2a\x00", 2);
    assert_true(unpack(&pb__ttrpc__request__descriptor, bytes, n) < 0);
    assert_int_equal(unpack(&pb__ttrpc__request__descriptor, bytes, 20000), 0);
    /* Unknown numbers. */
    for (size_t i = 0; i < n; i += 2)
        memcpy(bytes + i, "\x50\x01", 2);
    assert_true(unpack(&pb__ttrpc__request__descriptor, bytes, n) < 0);
    /* Metadata of ten bytes each: a reply may be such a list, but no request. */
    ProtobufCMessage *m = NULL;
    struct err e = ERR_INIT;
    n -= n % 10;
    for (size_t i = 0; i < n; i += 10)
        memcpy(bytes + i, "\x2a\x08\x0a\x02kk\x12\x02vv", 10);
    assert_int_equal(pb_unpack_request(&pb__ttrpc__request__descriptor, bytes, 40000, &m, &e), 0);
    pb_free(m);
    assert_true(pb_unpack_request(&pb__ttrpc__request__descriptor, bytes, n, &m, &e) < 0);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    /* One that is large because its payload is. */
    memcpy(bytes, "\x1a\xfa\xff\xff\x01", 5);
    assert_int_equal(
        pb_unpack_request(&pb__ttrpc__request__descriptor, bytes, 5 + 0x3ffffa, &m, &e), 0);
    pb_free(m);
}

static void timestamps(_unused_ void **state)
{
    struct timespec none = {.tv_sec = 0}, some = {.tv_sec = 5, .tv_nsec = 7};

    Google__Protobuf__Timestamp *t = pb_timestamp_new(none);
    assert_int_equal(t->seconds, CLOCK_ZERO_SECONDS);
    struct timespec back = pb_timestamp_get(t);
    assert_true(back.tv_sec == 0 && back.tv_nsec == 0);
    pb_free(&t->base);
    t = pb_timestamp_new(some);
    back = pb_timestamp_get(t);
    assert_true(back.tv_sec == 5 && back.tv_nsec == 7);
    pb_free(&t->base);
    back = pb_timestamp_get(NULL);
    assert_true(back.tv_sec == 0 && back.tv_nsec == 0);
}

static void anys(_unused_ void **state)
{
    Pb__Ttrpc__KeyValue m = PB__TTRPC__KEY_VALUE__INIT;
    struct any a = {.type_url = NULL}, b = {.type_url = NULL};

    assert_string_equal(pb_type_name("containerd.runc.v1.Options"), "containerd.runc.v1.Options");
    assert_string_equal(pb_type_name("type.googleapis.com/ttrpc.KeyValue"), "ttrpc.KeyValue");
    assert_string_equal(pb_type_name("types.containerd.io/opencontainers/runtime-spec/1/Spec"),
                        "types.containerd.io/opencontainers/runtime-spec/1/Spec");

    m.key = (char *)"k";
    Google__Protobuf__Any *packed = pb_any_pack(&m.base);
    assert_string_equal(packed->type_url, "ttrpc.KeyValue");
    assert_true(pb_any_is(packed, &pb__ttrpc__key_value__descriptor));
    assert_false(pb_any_is(packed, &pb__ttrpc__request__descriptor));
    assert_false(pb_any_is(NULL, &pb__ttrpc__request__descriptor));
    assert_int_equal(pb_any_get(packed, &a), 0);
    pb_free(&packed->base);
    assert_int_equal(any_pack(&b, &m.base), 0);
    assert_string_equal(a.type_url, b.type_url);
    assert_int_equal(a.value_len, b.value_len);
    assert_memory_equal(a.value, b.value, b.value_len);

    Google__Protobuf__Any *again = pb_any_new(&a);
    assert_int_equal(again->value.len, a.value_len);
    pb_free(&again->base);
    assert_int_equal(pb_any_get(NULL, &a), 0);
    assert_true(any_is_empty(&a));
    assert_null(pb_any_new(&a));
    Google__Protobuf__Any empty = GOOGLE__PROTOBUF__ANY__INIT;
    assert_int_equal(pb_any_get(&empty, &b), 0);
    assert_true(any_is_empty(&b));
    any_done(&a);
    any_done(&b);
}

static void string_maps(_unused_ void **state)
{
    struct strmap labels = {.n = 0}, back = {.n = 0};

    assert_int_equal(strmap_set(&labels, "b", ""), 0);
    assert_int_equal(strmap_set(&labels, "a", "1"), 0);
    Pb__Containers__Container *m = malloc(sizeof(*m));
    pb__containers__container__init(m);
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(
        &pb__containers__container__descriptor, "labels");
    void **entries;
    assert_int_equal(pb_strmap_new(&labels, field->descriptor, &entries, &m->n_labels), 0);
    m->labels = (void *)entries;

    uint8_t *bytes;
    size_t n;
    assert_int_equal(pb_pack(&m->base, &bytes, &n), 0);
    pb_free(&m->base);
    ProtobufCMessage *unpacked;
    assert_int_equal(pb_unpack(&pb__containers__container__descriptor, bytes, n, &unpacked, NULL),
                     0);
    free(bytes);
    m = (Pb__Containers__Container *)unpacked;
    assert_int_equal(pb_strmap_get((void *)m->labels, m->n_labels, &back), 0);
    assert_int_equal(back.n, 2);
    assert_string_equal(strmap_get(&back, "a"), "1");
    assert_string_equal(strmap_get(&back, "b"), "");
    pb_free(unpacked);
    strmap_done(&labels);
    strmap_done(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_messages),      cmocka_unit_test(bad_messages),
        cmocka_unit_test(nesting_is_limited), cmocka_unit_test(small_parts_are_limited),
        cmocka_unit_test(timestamps),         cmocka_unit_test(anys),
        cmocka_unit_test(string_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

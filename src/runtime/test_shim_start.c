/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_start.h"

#include <setjmp.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/str.h"
#include "runtime.bootstrap.v1.pb-c.h"
#include "wire/pb.h"

#define ADDRESS "unix:///run/containerd/s/f00d"

/* "<address> <version>", or the error. */
static const char *parse(const void *bytes, size_t n)
{
    static char said[4096];
    _cleanup_(shim_endpoint_done) struct shim_endpoint endpoint = SHIM_ENDPOINT_NULL;
    _free_ char *output = malloc(n + 1);
    struct err e = ERR_INIT;

    assert_non_null(output);
    memcpy(output, bytes, n);
    output[n] = '\0';
    if (shim_start_parse(output, n, &endpoint, &e) < 0) {
        assert_null(endpoint.address);
        snprintf(said, sizeof(said), "%s", e.msg);
    } else {
        snprintf(said, sizeof(said), "%s %d", endpoint.address, endpoint.version);
    }
    return said;
}

static const char *parse_text(const char *text)
{
    return parse(text, strlen(text));
}

static void text_is_an_address(void **state)
{
    assert_string_equal(parse_text(ADDRESS), ADDRESS " 2");
    assert_string_equal(parse_text(" \n" ADDRESS "\n\n"), ADDRESS " 2");
    for (const char *const *bad = (const char *const[]){"", "\n", "x", "unix://relative", "/run/s",
                                                        ADDRESS "\"", ADDRESS "\nand more", NULL};
         *bad; bad++)
        assert_non_null(strstr(parse_text(*bad), "answered no address"));
}

static void json_has_a_version(void **state)
{
    assert_string_equal(
        parse_text("{\"version\":3,\"address\":\"" ADDRESS "\",\"protocol\":\"ttrpc\"}\n"),
        ADDRESS " 3");
    assert_string_equal(parse_text("{\"version\":2,\"address\":\"" ADDRESS "\"}"), ADDRESS " 2");
    assert_non_null(strstr(parse_text("{\"version\":99,\"address\":\"" ADDRESS "\"}"),
                           "unsupported shim version (99): not implemented"));
    assert_non_null(strstr(parse_text("{\"address\":\"" ADDRESS "\"}"), "version (0)"));
    assert_non_null(
        strstr(parse_text("{\"version\":3,\"address\":\"" ADDRESS "\",\"protocol\":\"grpc\"}"),
               "unsupported shim protocol grpc: not implemented"));
    assert_non_null(strstr(parse_text("{\"version\":3,\"protocol\":\"ttrpc\"}"), "no address"));
    assert_non_null(strstr(parse_text("{\"version\":3,\"addr"), "no address"));
}

static const char *parse_result(int version, const char *address, const char *protocol)
{
    Pb__Bootstrap__BootstrapResult result = PB__BOOTSTRAP__BOOTSTRAP_RESULT__INIT;
    _free_ uint8_t *bytes = NULL;
    size_t n = 0;

    result.version = version;
    result.address = (char *)address;
    result.protocol = (char *)protocol;
    assert_int_equal(pb_pack(&result.base, &bytes, &n), 0);
    return parse(bytes, n);
}

static void results_are_messages(void **state)
{
    assert_string_equal(parse_result(3, ADDRESS, "ttrpc"), ADDRESS " 3");
    assert_string_equal(parse_result(2, ADDRESS, ""), ADDRESS " 2");
    assert_non_null(strstr(parse_result(4, ADDRESS, "ttrpc"), "version (4)"));
    assert_non_null(strstr(parse_result(-1, ADDRESS, "ttrpc"), "version (-1)"));
    assert_non_null(strstr(parse_result(3, ADDRESS, "grpc"), "protocol grpc"));
    assert_non_null(strstr(parse_result(3, "vsock://3:1", "ttrpc"), "no address"));
    assert_non_null(strstr(parse_result(3, "", "ttrpc"), "no address"));
}

static void garbage_is_refused(void **state)
{
    char bytes[256];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)i;
    assert_non_null(strstr(parse(bytes, sizeof(bytes)), "no address"));
    memset(bytes, 0xff, sizeof(bytes));
    assert_non_null(strstr(parse(bytes, sizeof(bytes)), "no address"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_an_address),
        cmocka_unit_test(json_has_a_version),
        cmocka_unit_test(results_are_messages),
        cmocka_unit_test(garbage_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

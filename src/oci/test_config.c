/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "oci/config.h"

static int parse(const char *json, struct oci_config *c, struct err *e)
{
    return oci_config_parse(json, strlen(json), c, e);
}

static void test_facts(void **state)
{
    struct oci_config c = {};
    struct err e = ERR_INIT;

    assert_int_equal(parse("{\"ociVersion\":\"1.0.2-dev\",\"root\":{\"path\":\"rootfs\"},"
                           "\"process\":{\"terminal\":true},"
                           "\"annotations\":{\"io.kubernetes.cri.sandbox-id\":\"pod\"},"
                           "\"linux\":{\"cgroupsPath\":\"/default/c1\","
                           "\"gidMappings\":[{\"containerID\":5,\"hostID\":1,\"size\":1},"
                           "{\"containerID\":0,\"hostID\":100000,\"size\":65536}],"
                           "\"namespaces\":[{\"type\":\"mount\"},{\"type\":\"pid\"}]}}",
                           &c, &e),
                     0);
    assert_string_equal(c.oci_version, "1.0.2-dev");
    assert_string_equal(c.root_path, "rootfs");
    assert_string_equal(c.cgroups_path, "/default/c1");
    assert_string_equal(c.group, "pod");
    assert_true(c.terminal);
    assert_true(c.has_private_pids);
    assert_true(c.has_root_gid);
    assert_int_equal(c.root_gid, 100000);
    oci_config_done(&c);

    assert_int_equal(parse("{\"annotations\":{\"io.kubernetes.cri.sandbox-id\":\"pod\","
                           "\"io.containerd.runc.v2.group\":\"g\"},\"linux\":{\"namespaces\":"
                           "[{\"type\":\"pid\",\"path\":\"/proc/1/ns/pid\"}]}}",
                           &c, &e),
                     0);
    assert_string_equal(c.group, "g");
    assert_false(c.has_private_pids);
    assert_false(c.has_root_gid);
    assert_null(c.oci_version);
    oci_config_done(&c);

    assert_int_equal(parse("{\"linux\":[],\"ociVersion\":7,\"annotations\":\"x\"}", &c, &e), 0);
    assert_null(c.oci_version);
    assert_false(c.has_private_pids);
    oci_config_done(&c);
}

static void test_refused(void **state)
{
    static const char *const bad[] = {"", "[]", "{", "{\"a\":1,\"a\":2}", "{}x", "\"s\"", "null"};
    struct oci_config c = {};
    char deep[400];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err e = ERR_INIT;
        assert_true(parse(bad[i], &c, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    }
    struct err e = ERR_INIT;
    memset(deep, '[', sizeof(deep));
    assert_true(oci_config_parse(deep, sizeof(deep), &c, &e) < 0);
    assert_non_null(strstr(e.msg, "nested"));
    assert_true(oci_config_load("/nonexistent", &c, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

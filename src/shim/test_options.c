/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "base/fs.h"
#include "runc.v1.pb-c.h"
#include "runtimeoptions.v1.pb-c.h"
#include "shim/options.h"

static void test_round_trip(void **state)
{
    char dir[] = "/tmp/test-options-XXXXXX";
    Pb__Runc__Options m = PB__RUNC__OPTIONS__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    struct options o = {}, loaded = {};
    struct err e = ERR_INIT;
    char *runtime = NULL;
    uint8_t packed[256];

    m.no_pivot_root = true;
    m.systemd_cgroup = true;
    m.io_uid = 1000;
    m.binary_name = (char *)"crun";
    m.root = (char *)"/run/x";
    m.criu_path = (char *)"/opt/criu";
    any.type_url = (char *)"containerd.runc.v1.Options";
    any.value.data = packed;
    any.value.len = pb__runc__options__pack(&m, packed);
    assert_int_equal(options_decode(&any, &o, &e), 0);
    assert_string_equal(o.binary_name, "crun");
    assert_null(o.shim_cgroup);

    assert_non_null(mkdtemp(dir));
    assert_int_equal(options_save(&o, dir, "/usr/bin/crun"), 0);
    assert_int_equal(options_load(dir, &loaded, &runtime), 0);
    assert_string_equal(runtime, "/usr/bin/crun");
    assert_string_equal(loaded.binary_name, "crun");
    assert_string_equal(loaded.root, "/run/x");
    assert_string_equal(loaded.criu_path, "/opt/criu");
    assert_true(loaded.no_pivot_root);
    assert_true(loaded.systemd_cgroup);
    assert_false(loaded.no_new_keyring);
    assert_int_equal(loaded.io_uid, 1000);
    char *root = options_runtime_root(&loaded, "ns");
    assert_string_equal(root, "/run/x/ns");
    free(root);
    free(runtime);
    options_done(&loaded);
    options_done(&o);
    assert_int_equal(fs_rm_rf(AT_FDCWD, dir), 0);

    assert_int_equal(options_load(dir, &loaded, &runtime), 0);
    assert_null(runtime);
    assert_null(loaded.root);
}

static int decode_table(const char *path, const char *text, struct options *o, struct err *e)
{
    Pb__Runtimeoptions__Options m = PB__RUNTIMEOPTIONS__OPTIONS__INIT;
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    uint8_t packed[512];

    m.config_path = (char *)path;
    m.config_body.data = (uint8_t *)text;
    m.config_body.len = strlen(text);
    any.type_url = (char *)"runtimeoptions.v1.Options";
    any.value.data = packed;
    any.value.len = pb__runtimeoptions__options__pack(&m, packed);
    return options_decode(&any, o, e);
}

static void test_table(void **state)
{
    struct options o = {};
    struct err e = ERR_INIT;

    assert_int_equal(decode_table("",
                                  "BinaryName = 'crun'\nSystemdCgroup = true\nIoUid = 5\n"
                                  "Unknown = 1.5\nRoot = ''\n",
                                  &o, &e),
                     0);
    assert_string_equal(o.binary_name, "crun");
    assert_true(o.systemd_cgroup);
    assert_int_equal(o.io_uid, 5);
    assert_null(o.root);
    options_done(&o);
    assert_int_equal(decode_table("", "", &o, &e), 0);
    assert_true(decode_table("", "IoUid = 'x'", &o, &e) < 0);
    assert_non_null(strstr(e.msg, "io_uid on line 1"));
    assert_true(decode_table("", "IoGid = -1", &o, &e) < 0);
    assert_true(decode_table("", "SystemdCgroup = ", &o, &e) < 0);
    assert_true(decode_table("/etc/x.toml", "", &o, &e) < 0);
    assert_non_null(strstr(e.msg, "/etc/x.toml"));
}

static void test_refused(void **state)
{
    Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
    struct options o = {};
    struct err e = ERR_INIT;
    uint8_t garbage[] = {0xff, 0xff, 0xff};

    assert_int_equal(options_decode(NULL, &o, &e), 0);
    assert_int_equal(options_decode(&any, &o, &e), 0);
    any.type_url = (char *)"containerd.runc.v1.Options";
    any.value.data = garbage;
    any.value.len = sizeof(garbage);
    assert_true(options_decode(&any, &o, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    any.type_url = (char *)"something.else.Options";
    assert_true(options_decode(&any, &o, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

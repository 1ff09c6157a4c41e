/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "base/fs.h"
#include "runc.v1.pb-c.h"
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
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

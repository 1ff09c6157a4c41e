/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/str.h"
#include "oci/document.h"
#include "oci/spec.h"

#define CAPS                                                                                      \
    "[\"CAP_CHOWN\",\"CAP_DAC_OVERRIDE\",\"CAP_FOWNER\",\"CAP_FSETID\",\"CAP_KILL\",\"CAP_"       \
    "SETGID\","                                                                                   \
    "\"CAP_SETUID\",\"CAP_SETPCAP\",\"CAP_NET_BIND_SERVICE\",\"CAP_NET_RAW\",\"CAP_SYS_CHROOT\"," \
    "\"CAP_MKNOD\",\"CAP_AUDIT_WRITE\",\"CAP_SETFCAP\"]"
#define ALLOW(major, minor) \
    "{\"allow\":true,\"type\":\"c\",\"major\":" #major ",\"minor\":" #minor ",\"access\":\"rwm\"}"

/* What containerd 1.6's client library generates for the same container; the version, the order of
 * the capabilities and the masked powercap directory (later versions have it) are ours. */
/* clang-format off */
static const char golden[] = "{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0,"
                             "\"additionalGids\":[0,6]},"
                             "\"args\":[\"true\"],\"env\":[\"PATH=/bin\",\"FOO=bar\"],\"cwd\":\"/"
                             "tmp\",\"capabilities\":{"
                             "\"bounding\":" CAPS ",\"effective\":" CAPS ",\"permitted\":" CAPS
                             "},\"rlimits\":[{\"type\":"
                             "\"RLIMIT_NOFILE\",\"hard\":1024,\"soft\":1024}],\"noNewPrivileges\":"
                             "true},\"root\":{\"path\":"
                             "\"rootfs\"},\"mounts\":["
                             "{\"destination\":\"/"
                             "proc\",\"type\":\"proc\",\"source\":\"proc\",\"options\":[\"nosuid\","
                             "\"noexec\","
                             "\"nodev\"]},"
                             "{\"destination\":\"/"
                             "dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":["
                             "\"nosuid\","
                             "\"strictatime\",\"mode=755\",\"size=65536k\"]},"
                             "{\"destination\":\"/dev/"
                             "pts\",\"type\":\"devpts\",\"source\":\"devpts\",\"options\":["
                             "\"nosuid\","
                             "\"noexec\",\"newinstance\",\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"]"
                             "},"
                             "{\"destination\":\"/dev/"
                             "shm\",\"type\":\"tmpfs\",\"source\":\"shm\",\"options\":[\"nosuid\","
                             "\"noexec\",\"nodev\",\"mode=1777\",\"size=65536k\"]},"
                             "{\"destination\":\"/dev/"
                             "mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\",\"options\":["
                             "\"nosuid\","
                             "\"noexec\",\"nodev\"]},"
                             "{\"destination\":\"/"
                             "sys\",\"type\":\"sysfs\",\"source\":\"sysfs\",\"options\":["
                             "\"nosuid\",\"noexec\","
                             "\"nodev\",\"ro\"]},"
                             "{\"destination\":\"/"
                             "run\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":["
                             "\"nosuid\","
                             "\"strictatime\",\"mode=755\",\"size=65536k\"]}],"
                             "\"linux\":{\"resources\":{\"devices\":[{\"allow\":false,\"access\":"
                             "\"rwm\"}," ALLOW(1, 3) "," ALLOW(1, 8) "," ALLOW(1, 7) "," ALLOW(
                                 5,
                                 0) "," ALLOW(1,
                                              5) "," ALLOW(1,
                                                           9) "," ALLOW(5,
                                                                        1) ","
                                                                           "{\"allow\":true,"
                                                                           "\"type\":\"c\","
                                                                           "\"major\":136,"
                                                                           "\"access\":\"rwm\"}"
                                                                           "," ALLOW(
                                                                               5,
                                                                               2) "]},"
                                                                                  "\"cgroupsPath\":"
                                                                                  "\"/default/"
                                                                                  "t1\","
                                                                                  "\"namespaces\":["
                                                                                  "{\"type\":"
                                                                                  "\"pid\"},{"
                                                                                  "\"type\":"
                                                                                  "\"ipc\"},{"
                                                                                  "\"type\":"
                                                                                  "\"uts\"},{"
                                                                                  "\"type\":"
                                                                                  "\"mount\"},{"
                                                                                  "\"type\":"
                                                                                  "\"network\"}],"
                                                                                  "\"maskedPaths\":"
                                                                                  "[\"/proc/"
                                                                                  "acpi\",\"/proc/"
                                                                                  "asound\",\"/"
                                                                                  "proc/kcore\",\"/"
                                                                                  "proc/keys\","
                                                                                  "\"/proc/"
                                                                                  "latency_stats\","
                                                                                  "\"/proc/"
                                                                                  "timer_list\",\"/"
                                                                                  "proc/"
                                                                                  "timer_stats\","
                                                                                  "\"/proc/"
                                                                                  "sched_debug\","
                                                                                  "\"/sys/"
                                                                                  "firmware\",\"/"
                                                                                  "sys/devices/"
                                                                                  "virtual/"
                                                                                  "powercap\",\"/"
                                                                                  "proc/scsi\"],"
                                                                                  "\"readonlyPaths"
                                                                                  "\":[\"/proc/"
                                                                                  "bus\",\"/proc/"
                                                                                  "fs\",\"/proc/"
                                                                                  "irq\",\"/proc/"
                                                                                  "sys\","
                                                                                  "\"/proc/"
                                                                                  "sysrq-trigger\"]"
                                                                                  "}}";
/* clang-format on */

static char *args[] = {(char *)"true", NULL};
static char *env[] = {(char *)"PATH=/bin", (char *)"FOO=bar", NULL};
static uint32_t gids[] = {0, 6};
static const struct user root = {.gids = gids, .n_gids = 2};

static struct spec plain(void)
{
    return (struct spec){
        .id = "t1",
        .namespace_ = "default",
        .args = args,
        .env = env,
        .cwd = "/tmp",
        .user = &root,
        .no_new_privileges = true,
        .caps = SPEC_CAPS_DEFAULT,
    };
}

static json_t *generate(const struct spec *s)
{
    _free_ char *text = NULL;
    struct err e = ERR_INIT;
    json_t *json;

    if (spec_format(s, &text, &e) < 0)
        fail_msg("%s", e.msg);
    json = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    return json;
}

static void test_golden(void **state)
{
    struct spec s = plain();
    _json_ json_t *made = generate(&s), *wanted = json_loads(golden, JSON_REJECT_DUPLICATES, NULL);

    assert_non_null(wanted);
    if (!json_equal(made, wanted))
        fail_msg("%s", json_dumps(made, JSON_INDENT(1)));
}

static json_t *at(json_t *object, const char *a, const char *b)
{
    json_t *value = json_object_get(object, a);

    return b ? json_object_get(value, b) : value;
}

static void test_privileged(void **state)
{
    struct spec s = plain();
    _json_ json_t *json = NULL;

    s.privileged = true;
    s.network = SPEC_NETWORK_HOST;
    json = generate(&s);
    assert_null(at(json, "linux", "maskedPaths"));
    assert_null(at(json, "linux", "readonlyPaths"));
    assert_int_equal(json_array_size(at(json, "linux", "namespaces")), 4);
    assert_int_equal(json_array_size(at(at(json, "linux", "resources"), "devices", NULL)), 1);
    assert_int_equal(json_array_size(at(json, "mounts", NULL)), 9);
}

static void test_limits(void **state)
{
    struct spec s = plain();
    _json_ json_t *json = NULL;
    json_t *resources;

    s.memory_bytes = 64 << 20;
    s.cpu_quota_us = 150000;
    s.cpu_period_us = 100000;
    s.pids_limit = 20;
    s.read_only = true;
    s.hostname = "h";
    json = generate(&s);
    resources = at(json, "linux", "resources");
    assert_int_equal(json_integer_value(at(resources, "memory", "limit")), 64 << 20);
    assert_int_equal(json_integer_value(at(resources, "cpu", "quota")), 150000);
    assert_int_equal(json_integer_value(at(resources, "pids", "limit")), 20);
    assert_true(json_is_true(at(json, "root", "readonly")));
    assert_string_equal(json_string_value(at(json, "hostname", NULL)), "h");
}

static void test_not_utf8(void **state)
{
    char *bad[] = {(char *)"a\xff", NULL};
    struct spec s = plain();
    struct err e = ERR_INIT;
    char *text = NULL;

    s.args = bad;
    assert_true(spec_format(&s, &text, &e) < 0);
    assert_null(text);
}

static void test_exec(void **state)
{
    char *new_args[] = {(char *)"id", NULL}, *new_env[] = {(char *)"FOO=2", (char *)"X=1", NULL};
    struct user bob = {.uid = 1000, .gid = 1000};
    struct spec_exec x = {
        .args = new_args, .env = new_env, .cwd = "/", .terminal = true, .user = &bob};
    _json_ json_t *json = NULL;
    _free_ char *text = NULL;
    struct err e = ERR_INIT;

    assert_int_equal(spec_exec_format(golden, strlen(golden), &x, &text, &e), 0);
    json = json_loads(text, 0, NULL);
    assert_string_equal(json_string_value(json_array_get(at(json, "args", NULL), 0)), "id");
    assert_int_equal(json_array_size(at(json, "env", NULL)), 3);
    assert_string_equal(json_string_value(json_array_get(at(json, "env", NULL), 1)), "FOO=2");
    assert_int_equal(json_integer_value(at(json, "user", "uid")), 1000);
    assert_null(at(json, "user", "additionalGids"));
    assert_true(json_is_true(at(json, "terminal", NULL)));
    /* Nothing is added to what the container has. */
    assert_int_equal(json_array_size(at(json, "capabilities", "bounding")), 14);
    assert_null(at(json, "capabilities", "inheritable"));
    assert_null(at(json, "capabilities", "ambient"));
}

static void test_caps(void **state)
{
    struct err e = ERR_INIT;
    uint64_t mask = 0;

    assert_int_equal(spec_cap_parse("net_admin", &mask, &e), 0);
    assert_int_equal(mask, 1 << 12);
    assert_int_equal(spec_cap_parse("CAP_SYS_ADMIN", &mask, &e), 0);
    assert_int_equal(mask, 1 << 21);
    assert_true(spec_cap_parse("CAP_", &mask, &e) < 0);
    assert_true(spec_cap_parse("", &mask, &e) < 0);
}

static void test_summary(void **state)
{
    _cleanup_(spec_summary_done) struct spec_summary s = {}, none = {};
    struct err e = ERR_INIT;

    assert_int_equal(spec_summarise(golden, strlen(golden), &s, &e), 0);
    assert_string_equal(s.args[0], "true");
    assert_string_equal(s.cwd, "/tmp");
    assert_int_equal(spec_summarise("{}", 2, &none, &e), 0);
    assert_null(none.args);
    assert_true(spec_summarise("[", 1, &none, &e) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),  cmocka_unit_test(test_privileged),
        cmocka_unit_test(test_limits),  cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_exec),    cmocka_unit_test(test_caps),
        cmocka_unit_test(test_summary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/fs.h"
#include "base/str.h"
#include "daemon/config_keys.h"

/* A directory of its own for each test, with files put into it by name. */
struct place {
    char dir[64];
    char path[128]; /* of the file written last */
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    snprintf(p->dir, sizeof(p->dir), "/tmp/test-config-XXXXXX");
    *state = p;
    return mkdtemp(p->dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    int r = fs_rm_rf(AT_FDCWD, p->dir);

    free(p);
    return r;
}

static const char *put(struct place *p, const char *name, const char *text)
{
    snprintf(p->path, sizeof(p->path), "%s/%s", p->dir, name);
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, p->path, text, strlen(text), 0600, false), 0);
    return p->path;
}

static void load(struct config *c, const char *path)
{
    struct err e = ERR_INIT;

    assert_int_equal(config_init(c, &e), 0);
    if (config_load(c, path, &e) < 0)
        fail_msg("%s", e.msg);
}

/* The sentence must begin with the path of the file written last, and go on with `rest`. */
static void expect_refusal(struct place *p, const char *text, const char *rest)
{
    _cleanup_(config_done) struct config c = {};
    struct err e = ERR_INIT;
    const char *path = put(p, "config.toml", text);

    assert_int_equal(config_init(&c, &e), 0);
    if (config_load(&c, path, &e) >= 0)
        fail_msg("accepted: %s", text);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    const char *tail = str_after_prefix(e.msg, path);
    assert_non_null(tail);
    if (!str_after_prefix(tail, rest))
        fail_msg("%s\nexpected: %s", tail, rest);
}

static void assert_same_lists(char *const *a, char *const *b)
{
    assert_int_equal(strv_len(a), strv_len(b));
    for (size_t i = 0; i < strv_len(a); i++)
        assert_string_equal(a[i], b[i]);
}

static void assert_same(const struct config *a, const struct config *b)
{
    for (size_t i = 0; i < config_n_keys; i++) {
        const void *x = (const char *)a + config_keys[i].offset;
        const void *y = (const char *)b + config_keys[i].offset;
        switch (config_keys[i].kind) {
        case CONFIG_STRING:
        case CONFIG_LEVEL:
        case CONFIG_SHARING:
            assert_string_equal(*(char *const *)x, *(char *const *)y);
            break;
        case CONFIG_STRINGS:
        case CONFIG_PLUGINS:
            assert_same_lists(*(char **const *)x, *(char **const *)y);
            break;
        case CONFIG_BOOL:
            assert_int_equal(*(const bool *)x, *(const bool *)y);
            break;
        case CONFIG_ID:
            assert_int_equal(*(const uint32_t *)x, *(const uint32_t *)y);
            break;
        default:
            assert_memory_equal(x, y, 8);
            break;
        }
    }
}

/* Writes c and loads that again. */
static void assert_survives_writing(struct place *p, const struct config *c)
{
    _cleanup_(config_done) struct config again = {};
    const char *path = put(p, "written.toml", "");
    _close_ int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(config_write(c, fd), 0);
    load(&again, path);
    assert_int_equal(strv_len(again.warnings), 0);
    assert_same(c, &again);
}

static void has_defaults(void **state)
{
    _cleanup_(config_done) struct config c = {};
    struct err e = ERR_INIT;

    assert_int_equal(config_init(&c, &e), 0);
    assert_survives_writing(*state, &c);
    assert_int_equal(config_finish(&c, &e), 0);
    assert_string_equal(c.root, "/var/lib/wherry");
    assert_string_equal(c.state, "/run/wherry");
    assert_string_equal(c.grpc_address, "/run/wherry/wherry.sock");
    assert_string_equal(c.ttrpc_address, "/run/wherry/wherry.sock.ttrpc");
    assert_int_equal(c.max_recv_message_bytes, 16 << 20);
    assert_int_equal(c.shim_shutdown_timeout_ms, 3000);
    assert_string_equal(c.differs[0], "walking");
    assert_survives_writing(*state, &c);
}

static const char full[] =
    "version = 3\n"
    "root = \"/data/\\\"odd\\\" root\"\n"
    "state = '/data/state/'\n"
    "oom_score = -999\n"
    "disabled_plugins = [\"io.containerd.snapshotter.v1.native\"]\n"
    "required_plugins = [\"io.containerd.grpc.v1.tasks\", \"io.containerd.gc.v1.scheduler\"]\n"
    "[grpc]\naddress = \"/data/a.sock\"\nuid = 4294967295\ngid = 7\n"
    "max_recv_message_size = 1048576\nmax_send_message_size = 0\n"
    "[debug]\nlevel = \"debug\"\n"
    "[timeouts]\n\"io.containerd.timeout.shim.load\" = \"1m1.5s\"\n"
    "\"io.containerd.timeout.task.state\" = \"250ms\"\n"
    "[plugins.\"io.containerd.gc.v1.scheduler\"]\n"
    "pause_threshold = 0.1234567890123\ndeletion_threshold = 3\nmutation_threshold = 0\n"
    "schedule_delay = \"10s\"\nstartup_delay = \"0\"\n"
    "[plugins.\"io.containerd.metadata.v1.bolt\"]\ncontent_sharing_policy = \"isolated\"\n"
    "[plugins.\"io.containerd.runtime.v1.linux\"]\n"
    "shim = \"/s\"\nruntime = \"runc\"\nruntime_root = \"/r\"\nno_shim = true\nshim_debug = true\n"
    "[plugins.\"io.containerd.runtime.v2.task\"]\nplatforms = [\"linux/amd64\"]\n"
    "[plugins.\"io.containerd.service.v1.diff-service\"]\ndefault = [\"a\", \"b\"]\n"
    "[plugins.\"io.containerd.snapshotter.v1.overlayfs\"]\n"
    "root_path = \"/o\"\nupperdir_label = true\nsync_remove = true\nmount_options = "
    "[\"volatile\"]\n"
    "[plugins.\"io.containerd.snapshotter.v1.native\"]\nroot_path = \"/n\"\n"
    "[plugins.\"io.wherry.runtime.v1\"]\n"
    "oci_runtime = \"crun\"\nshim = \"/shim\"\nshim_socket_dir = \"/sockets\"\n";

static void reads_every_key(void **state)
{
    _cleanup_(config_done) struct config c = {};
    struct err e = ERR_INIT;

    load(&c, put(*state, "config.toml", full));
    assert_int_equal(strv_len(c.warnings), 0);
    assert_survives_writing(*state, &c);
    assert_int_equal(config_finish(&c, &e), 0);
    assert_string_equal(c.root, "/data/\"odd\" root");
    assert_string_equal(c.state, "/data/state");
    assert_int_equal(c.oom_score, -999);
    assert_int_equal(strv_len(c.required_plugins), 2);
    assert_int_equal(c.grpc_uid, UINT32_MAX);
    assert_int_equal(c.max_recv_message_bytes, 1 << 20);
    assert_int_equal(c.max_send_message_bytes, 16 << 20);
    assert_string_equal(c.ttrpc_address, "/data/a.sock.ttrpc");
    assert_int_equal(c.ttrpc_gid, 7);
    assert_string_equal(c.log_level, "debug");
    assert_int_equal(c.shim_load_timeout_ms, 61500);
    assert_int_equal(c.task_state_timeout_ms, 250);
    assert_true(c.gc_pause_threshold == 0.1234567890123);
    assert_int_equal(c.gc_schedule_delay_ms, 10000);
    assert_int_equal(c.gc_startup_delay_ms, 0);
    assert_string_equal(c.content_sharing_policy, "isolated");
    assert_true(c.linux_no_shim && c.linux_shim_debug && c.overlay_sync_remove);
    assert_string_equal(c.platforms[0], "linux/amd64");
    assert_int_equal(strv_len(c.differs), 2);
    assert_string_equal(c.overlay_mount_options[0], "volatile");
    assert_string_equal(c.oci_runtime, "crun");
    assert_string_equal(c.shim_socket_dir, "/sockets");
}

static void warns_of_unknown_keys(void **state)
{
    _cleanup_(config_done) struct config c = {};
    const char *path = put(*state, "config.toml",
                           "version = 2\ncolour = 1\n[grpc]\ntcp_address = \"\"\n[metrics]\n"
                           "address = \"x\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\na.b = 1\n"
                           "[plugins.\"io.containerd.gc.v1.scheduler\"]\nspeed = 1\n"
                           "[plugins.grpc]\naddress = \"/not/this\"\n");
    static const char *const rest[] = {
        ":2: unknown key colour is ignored",
        ":5: unknown key metrics is ignored",
        ":4: unknown key tcp_address in [grpc] is ignored",
        ":7: unknown plugin io.containerd.grpc.v1.cri is ignored",
        ":10: unknown key speed in [io.containerd.gc.v1.scheduler] is ignored",
        ":11: unknown plugin grpc is ignored",
    };

    load(&c, path);
    assert_int_equal(strv_len(c.warnings), ARRAY_SIZE(rest));
    for (size_t i = 0; i < ARRAY_SIZE(rest); i++)
        assert_string_equal(str_after_prefix(c.warnings[i], path), rest[i]);
    assert_string_equal(c.grpc_address, "/run/wherry/wherry.sock");
}

static void refuses_with_file_and_line(void **state)
{
    static const char *const cases[][2] = {
        {"root = \"/x\"\n", ":1: this is the layout of version 1, which is not supported: write"},
        {"\n version = 1\n", ":2: this is the layout of version 1"},
        {"version = 4\n", ":1: version must be 2 or 3"},
        {"version = \"2\"\n", ":1: version must be 2 or 3"},
        {"version = 2\nroot = 1\n", ":2: root must be a string, not an integer"},
        {"version = 2\nroot = \"a\\u0000\"\n", ":2: root holds a NUL character"},
        {"version = 2\noom_score = 1001\n",
         ":2: oom_score must be between -1000 and 1000, not 1001"},
        {"version = 2\noom_score = 1.0\n", ":2: oom_score must be an integer, not a float"},
        {"version = 2\ngrpc = 1\n", ":2: grpc must be a table, not an integer"},
        {"version = 2\n[grpc]\nuid = -1\n", ":3: uid must be between 0 and 4294967295, not -1"},
        {"version = 2\n[grpc]\nmax_recv_message_size = 9999999999\n",
         ":3: max_recv_message_size must be between 0 and 2147483647"},
        {"version = 2\n[debug]\nlevel = \"loud\"\n", ":3: level \"loud\" is not one of trace,"},
        {"version = 2\n[timeouts]\n\"io.containerd.timeout.shim.load\" = 5\n",
         ":3: io.containerd.timeout.shim.load must be a string, not an integer"},
        {"version = 2\n[timeouts]\n\"io.containerd.timeout.shim.load\" = \"5\"\n",
         ":3: io.containerd.timeout.shim.load \"5\" is not a duration such as"},
        {"version = 2\nplugins = []\n", ":2: plugins must be a table, not an array"},
        {"version = 2\n[plugins]\n\"io.containerd.gc.v1.scheduler\" = 1\n",
         ":3: io.containerd.gc.v1.scheduler must be a table, not an integer"},
        {"version = 2\n[plugins.\"io.containerd.gc.v1.scheduler\"]\npause_threshold = -0.1\n",
         ":3: pause_threshold must not be negative"},
        {"version = 2\n[plugins.\"io.containerd.gc.v1.scheduler\"]\npause_threshold = nan\n",
         ":3: pause_threshold must not be negative"},
        {"version = 2\n[plugins.\"io.containerd.metadata.v1.bolt\"]\ncontent_sharing_policy = "
         "\"\"\n",
         ":3: content_sharing_policy \"\" is neither"},
        {"version = 2\n[plugins.\"io.containerd.runtime.v1.linux\"]\nno_shim = \"yes\"\n",
         ":3: no_shim must be a boolean, not a string"},
        {"version = 2\n[plugins.\"io.containerd.service.v1.diff-service\"]\ndefault = [\"a\", 1]\n",
         ":3: default must hold strings only, not an integer"},
        {"version = 2\ndisabled_plugins = [\"cri\"]\n",
         ":2: disabled_plugins names \"cri\"; a plugin's"},
        {"version = 2\nimports = \"x\"\n", ":2: imports must be an array, not a string"},
        {"version = 2\nimports = [1]\n", ":2: imports must be an array of paths"},
        {"version = 2\nroot = /x\n", ":2:8: expected a value, found '/'"},
        {"version = 2\nversion = 2\n", ":2:1: key version is already defined in line 1"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        expect_refusal(*state, cases[i][0], cases[i][1]);
}

static void tells_a_missing_file(void **state)
{
    struct place *p = *state;
    _cleanup_(config_done) struct config c = {};
    struct err e = ERR_INIT;
    char path[96];

    assert_int_equal(config_init(&c, &e), 0);
    snprintf(path, sizeof(path), "%s/none.toml", p->dir);
    assert_true(config_load(&c, path, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    /* A directory is not a file, and no missing one either. */
    assert_true(config_load(&c, p->dir, &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    /* Nothing but comments is a file that changes nothing. */
    assert_int_equal(config_load(&c, put(p, "empty.toml", "# nothing\n"), &e), 0);
}

static void follows_imports(void **state)
{
    struct place *p = *state;
    _cleanup_(config_done) struct config c = {};
    char sub[96];

    snprintf(sub, sizeof(sub), "%s/conf.d", p->dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    put(p, "conf.d/10.toml",
        "root = \"/ten\"\nstate = \"/ten-state\"\n"
        "disabled_plugins = [\"io.containerd.a.v1.b\"]\n"
        "imports = [\"sub.inc\"]\n");
    put(p, "conf.d/20.toml",
        "version = 3\nroot = \"/twenty\"\n"
        "disabled_plugins = [\"io.containerd.a.v1.b\", \"io.containerd.c.v1.d\"]\n");
    put(p, "conf.d/sub.inc", "[grpc]\naddress = \"/inc.sock\"\n");
    put(p, "conf.d/ignored.txt", "not toml at all");
    load(&c, put(p, "config.toml",
                 "version = 2\nroot = \"/main\"\nstate = \"/main-state\"\n"
                 "imports = [\"conf.d/*.toml\", \"none/*.toml\"]\n"
                 "disabled_plugins = [\"io.containerd.x.v1.y\"]\n"));
    assert_string_equal(c.root, "/twenty");
    assert_string_equal(c.state, "/ten-state");
    assert_string_equal(c.grpc_address, "/inc.sock");
    assert_int_equal(strv_len(c.disabled_plugins), 3);
    assert_int_equal(strv_len(c.imports), 3);
    assert_non_null(str_after_prefix(c.imports[0], p->dir));
    /* A flag wins over what was imported, also when all of it was written and is read again. */
    free(c.root);
    c.root = strdup("/flag");
    assert_survives_writing(p, &c);
}

static void refuses_bad_imports(void **state)
{
    struct place *p = *state;
    _cleanup_(config_done) struct config c = {}, d = {};
    struct err e = ERR_INIT;

    assert_int_equal(config_init(&c, &e), 0);
    put(p, "b.toml", "imports = [\"./a.toml\"]\n");
    assert_true(config_load(&c, put(p, "a.toml", "version = 2\nimports = [\"b.toml\"]\n"), &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.msg, "/b.toml imports "));
    assert_true(str_has_suffix(e.msg, "/a.toml, which imports it in turn"));
    assert_true(config_load(&c, put(p, "self.toml", "version = 2\nimports = [\"s*.toml\"]\n"), &e) <
                0);
    assert_true(str_has_suffix(e.msg, "/self.toml, which imports it in turn"));

    assert_true(
        config_load(&c, put(p, "m.toml", "version = 2\nimports = [\"missing.toml\"]\n"), &e) < 0);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_true(str_has_suffix(e.msg, "/missing.toml: no such file or directory"));

    /* Files that import the next ones twice would be read 2^n times. */
    for (int i = 0; i < 20; i++) {
        char name[16], text[128];
        snprintf(name, sizeof(name), "n%d", i);
        snprintf(text, sizeof(text), "version = 2\nimports = [\"n%d\", \"n%d\"]\n", i + 1, i + 1);
        put(p, name, i < 19 ? text : "version = 2\n");
    }
    assert_int_equal(config_init(&d, &e), 0);
    char first[96];
    snprintf(first, sizeof(first), "%s/n0", p->dir);
    assert_true(config_load(&d, first, &e) < 0);
    assert_true(str_has_suffix(e.msg, ": more than 256 imported files"));
}

static void finishing_checks_paths(void **state)
{
    static const struct {
        const char *root, *state, *address, *why;
    } cases[] = {
        {"/a", "/a/", "/s", "root and state must be different paths: invalid argument"},
        {"", "/b", "/s", "root must be specified: invalid argument"},
        {"/a", "b", "/s", "state b must be an absolute path: invalid argument"},
        {"/a", "/b", "", "grpc address must be specified: invalid argument"},
        {"/a", "/b",
         "/123456789/123456789/123456789/123456789/123456789/123456789/123456789/123456789/"
         "123456789/"
         "123456789/12",
         "ttrpc address /123456789/"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(config_done) struct config c = {};
        struct err e = ERR_INIT;
        assert_int_equal(config_init(&c, &e), 0);
        free(c.root);
        free(c.state);
        free(c.grpc_address);
        c.root = strdup(cases[i].root);
        c.state = strdup(cases[i].state);
        c.grpc_address = strdup(cases[i].address);
        assert_true(config_finish(&c, &e) < 0);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(str_after_prefix(e.msg, cases[i].why));
    }
}

static void reads_durations(void **state)
{
    static const struct {
        const char *s;
        int r;
        uint64_t ms;
    } cases[] = {
        {"0", 0, 0},
        {"0s", 0, 0},
        {"5s", 0, 5000},
        {"1h2m3.5s", 0, 3723500},
        {"100ms", 0, 100},
        {"1us", 0, 1},
        {"1µs", 0, 1},
        {"1500000ns", 0, 2},
        {".5s", 0, 500},
        {"1.s", 0, 1000},
        {"+1m", 0, 60000},
        {"2562047h", 0, UINT64_C(9223369200000)},
        {"2562048h", -ERANGE, 0},
        {"99999999999999999999s", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"5", -EINVAL, 0},
        {"s", -EINVAL, 0},
        {".s", -EINVAL, 0},
        {"-1s", -EINVAL, 0},
        {"1 s", -EINVAL, 0},
        {"1d", -EINVAL, 0},
        {"1s2", -EINVAL, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t ms = 0;
        assert_int_equal(config_parse_duration(cases[i].s, &ms), cases[i].r);
        assert_int_equal(ms, cases[i].ms);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(has_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_every_key, set_up, tear_down),
        cmocka_unit_test_setup_teardown(warns_of_unknown_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_with_file_and_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(tells_a_missing_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(follows_imports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_bad_imports, set_up, tear_down),
        cmocka_unit_test(finishing_checks_paths),
        cmocka_unit_test(reads_durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"
#include "cgroup/oom.h"
#include "cgroup/stats.h"
#include "cgroups.v1.pb-c.h"
#include "cgroups.v2.pb-c.h"
#include "wire/pb.h"

static void put(const char *root, const char *file, const char *text)
{
    _free_ char *path = fs_join(root, file);
    _free_ char *dir = strdup(path);

    *strrchr(dir, '/') = '\0';
    assert_int_equal(fs_mkdir_p(AT_FDCWD, dir, 0755), 0);
    assert_int_equal(fs_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0644, false), 0);
}

static int make_root(void **state)
{
    char template[] = "/tmp/test-stats-XXXXXX";
    *state = strdup(mkdtemp(template));
    return 0;
}

static int remove_root(void **state)
{
    fs_rm_rf(AT_FDCWD, *state);
    free(*state);
    return 0;
}

static void test_v1(void **state)
{
    const char *root = *state;
    struct cgroup c = {};
    struct err e = ERR_INIT;
    Google__Protobuf__Any *any = NULL;

    put(root, "memory/ns/c/memory.stat", "cache 5\nrss 6\ntotal_unevictable 7\nnew_one 9\n");
    put(root, "memory/ns/c/memory.usage_in_bytes", "1000\n");
    put(root, "memory/ns/c/memory.limit_in_bytes", "2000\n");
    put(root, "memory/ns/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n");
    put(root, "pids/ns/c/pids.current", "4\n");
    put(root, "pids/ns/c/pids.max", "max\n");
    put(root, "cpu/ns/c/cpu.stat", "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n");
    put(root, "cpuacct/ns/c/cpuacct.usage", "123\n");
    put(root, "cpuacct/ns/c/cpuacct.usage_percpu", "100 23 \n");
    put(root, "cpuacct/ns/c/cpuacct.stat", "user 2\nsystem 1\n");
    put(root, "blkio/ns/c/blkio.throttle.io_serviced", "254:0 Read 5\n254:0 Total 6\nTotal 6\n");
    put(root, "hugetlb/ns/c/hugetlb.2MB.usage_in_bytes", "0\n");
    put(root, "hugetlb/ns/c/hugetlb.2MB.rsvd.usage_in_bytes", "0\n");
    assert_int_equal(cgroup_init_text(&c,
                                      "9:hugetlb:/ns/c\n8:pids:/ns/c\n4:memory:/ns/c\n"
                                      "2:cpu,cpuacct:/ns/c\n1:blkio:/ns/c\n0::/\n",
                                      root, false),
                     0);
    assert_true(cgroup_exists(&c));
    assert_int_equal(cgroup_stats(&c, &any, &e), 0);
    assert_string_equal(any->type_url, "io.containerd.cgroups.v1.Metrics");
    Pb__Cgroups1__Metrics *m = pb__cgroups1__metrics__unpack(NULL, any->value.len, any->value.data);
    assert_int_equal(m->memory->cache, 5);
    assert_int_equal(m->memory->total_unevictable, 7);
    assert_int_equal(m->memory->usage->usage, 1000);
    assert_int_equal(m->memory->usage->limit, 2000);
    assert_null(m->memory->swap);
    assert_int_equal(m->memory_oom_control->oom_kill, 3);
    assert_int_equal(m->pids->current, 4);
    assert_int_equal(m->pids->limit, 0);
    assert_int_equal(m->cpu->usage->total, 123);
    assert_int_equal(m->cpu->usage->user, 20000000);
    assert_int_equal(m->cpu->usage->n_per_cpu, 2);
    assert_int_equal(m->cpu->usage->per_cpu[1], 23);
    assert_int_equal(m->cpu->throttling->throttled_periods, 2);
    assert_int_equal(m->blkio->n_io_serviced_recursive, 2);
    assert_string_equal(m->blkio->io_serviced_recursive[0]->op, "Read");
    assert_int_equal(m->blkio->io_serviced_recursive[0]->major, 254);
    assert_int_equal(m->n_hugetlb, 1);
    assert_string_equal(m->hugetlb[0]->pagesize, "2MB");
    pb__cgroups1__metrics__free_unpacked(m, NULL);
    pb_free(&any->base);
    cgroup_done(&c);
}

static void test_v2(void **state)
{
    const char *root = *state;
    struct cgroup c = {};
    struct err e = ERR_INIT;
    Google__Protobuf__Any *any = NULL;

    put(root, "ns/c/memory.stat", "anon 1\nthp_collapse_alloc 2\n");
    put(root, "ns/c/memory.current", "10\n");
    put(root, "ns/c/memory.max", "max\n");
    put(root, "ns/c/memory.events", "low 0\noom 1\noom_kill 2\n");
    put(root, "ns/c/cpu.stat", "usage_usec 7\nnr_bursts 1\n");
    put(root, "ns/c/cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=12.34 total=99\n");
    put(root, "ns/c/pids.max", "max\n");
    put(root, "ns/c/io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n");
    put(root, "ns/c/rdma.max", "mlx4_0 hca_handle=max hca_object=20\n");
    assert_int_equal(cgroup_init_text(&c, "0::/ns/c\n", root, true), 0);
    assert_int_equal(cgroup_stats(&c, &any, &e), 0);
    assert_string_equal(any->type_url, "io.containerd.cgroups.v2.Metrics");
    Pb__Cgroups2__Metrics *m = pb__cgroups2__metrics__unpack(NULL, any->value.len, any->value.data);
    assert_int_equal(m->memory->anon, 1);
    assert_int_equal(m->memory->usage, 10);
    assert_true(m->memory->usage_limit == UINT64_MAX);
    assert_int_equal(m->memory_events->oom_kill, 2);
    assert_int_equal(m->cpu->usage_usec, 7);
    assert_int_equal(m->cpu->nr_bursts, 1);
    assert_true(m->cpu->psi->some->avg10 == 1.5);
    assert_true(m->cpu->psi->some->avg300 == 12.34);
    assert_int_equal(m->cpu->psi->some->total, 99);
    assert_true(m->pids->limit == UINT64_MAX);
    assert_int_equal(m->io->usage[0]->wios, 4);
    assert_true(m->rdma->limit[0]->hca_handles == UINT32_MAX);
    assert_int_equal(m->rdma->limit[0]->hca_objects, 20);
    pb__cgroups2__metrics__free_unpacked(m, NULL);
    pb_free(&any->base);
    cgroup_done(&c);
}

/* What newer kernels add: peaks, pressure of everything, huge pages, and a device's limits. */
static void test_v2_all(void **state)
{
    const char *root = *state;
    const char *pressure = "some avg10=0.10 avg60=2.00 avg300=99.99 total=7\n"
                           "full avg10=100.00 avg60=0.00 avg300=0.01 total=18446744073709551615\n";
    struct cgroup c = {};
    struct err e = ERR_INIT;
    Google__Protobuf__Any *any = NULL;

    put(root, "ns/c/memory.peak", "11\n");
    put(root, "ns/c/memory.max", "4096\n");
    put(root, "ns/c/memory.swap.current", "12\n");
    put(root, "ns/c/memory.swap.max", "max\n");
    put(root, "ns/c/memory.swap.peak", "13\n");
    put(root, "ns/c/memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n");
    put(root, "ns/c/memory.pressure", pressure);
    put(root, "ns/c/cpu.pressure", pressure);
    put(root, "ns/c/io.pressure", pressure);
    put(root, "ns/c/io.stat",
        "254:16 rbytes=1 wbytes=2 rios=3 wios=4\n7:0 \ngarbage\n8:x rbytes=1\n9:1 "
        "rbytes=18446744073709551615\n");
    put(root, "ns/c/pids.current", "8\n");
    put(root, "ns/c/pids.max", "100\n");
    put(root, "ns/c/hugetlb.2MB.current", "2097152\n");
    put(root, "ns/c/hugetlb.2MB.max", "max\n");
    put(root, "ns/c/hugetlb.2MB.events", "max 9\n");
    put(root, "ns/c/hugetlb.2MB.rsvd.current", "1\n");
    put(root, "ns/c/rdma.current",
        "mlx5_0 hca_handle=2 hca_object=3\nmlx5_1 hca_handle=4 hca_object=5\n");
    put(root, "ns/c/cpu.stat",
        "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\n"
        "throttled_usec 1\nnr_bursts 6\nburst_usec 7\ncore_sched.force_idle_usec 0\n");
    assert_int_equal(cgroup_init_text(&c, "0::/ns/c\n", root, true), 0);
    assert_int_equal(cgroup_stats(&c, &any, &e), 0);
    Pb__Cgroups2__Metrics *m = pb__cgroups2__metrics__unpack(NULL, any->value.len, any->value.data);
    assert_int_equal(m->memory->max_usage, 11);
    assert_int_equal(m->memory->usage_limit, 4096);
    assert_int_equal(m->memory->swap_usage, 12);
    assert_true(m->memory->swap_limit == UINT64_MAX);
    assert_int_equal(m->memory->swap_max_usage, 13);
    assert_int_equal(m->memory_events->low, 1);
    assert_int_equal(m->memory_events->high, 2);
    assert_int_equal(m->memory_events->max, 3);
    assert_int_equal(m->memory_events->oom, 4);
    assert_int_equal(m->memory_events->oom_kill, 5);
    assert_int_equal(m->memory_events->oom_group_kill, 6);
    const Pb__Cgroups2__PSIStats *psi[] = {m->memory->psi, m->cpu->psi, m->io->psi};
    for (size_t i = 0; i < ARRAY_SIZE(psi); i++) {
        assert_true(psi[i]->some->avg10 == 0.1 && psi[i]->some->avg60 == 2.0);
        assert_true(psi[i]->some->avg300 == 99.99 && psi[i]->some->total == 7);
        assert_true(psi[i]->full->avg10 == 100.0 && psi[i]->full->avg300 == 0.01);
        assert_true(psi[i]->full->total == UINT64_MAX);
    }
    assert_int_equal(m->io->n_usage, 3);
    assert_int_equal(m->io->usage[0]->major, 254);
    assert_int_equal(m->io->usage[0]->minor, 16);
    assert_int_equal(m->io->usage[0]->rios, 3);
    assert_int_equal(m->io->usage[1]->major, 7);
    assert_true(m->io->usage[2]->rbytes == UINT64_MAX);
    assert_int_equal(m->pids->current, 8);
    assert_int_equal(m->pids->limit, 100);
    assert_int_equal(m->n_hugetlb, 1);
    assert_int_equal(m->hugetlb[0]->current, 2097152);
    assert_true(m->hugetlb[0]->max == UINT64_MAX);
    assert_int_equal(m->hugetlb[0]->failcnt, 9);
    assert_string_equal(m->hugetlb[0]->pagesize, "2MB");
    assert_int_equal(m->rdma->n_current, 2);
    assert_string_equal(m->rdma->current[1]->device, "mlx5_1");
    assert_int_equal(m->rdma->current[1]->hca_objects, 5);
    assert_int_equal(m->cpu->user_usec, 5);
    assert_int_equal(m->cpu->system_usec, 4);
    assert_int_equal(m->cpu->nr_periods, 3);
    assert_int_equal(m->cpu->nr_throttled, 2);
    assert_int_equal(m->cpu->throttled_usec, 1);
    assert_int_equal(m->cpu->burst_usec, 7);
    pb__cgroups2__metrics__free_unpacked(m, NULL);
    pb_free(&any->base);
    cgroup_done(&c);
}

static void test_frozen(void **state)
{
    const char *root = *state;
    struct cgroup c = {};

    assert_int_equal(cgroup_init_text(&c, "3:freezer:/ns/c\n0::/\n", root, false), 0);
    assert_true(cgroup_is_frozen(&c)); /* nobody knows */
    put(root, "freezer/ns/c/freezer.state", "FREEZING\n");
    assert_true(cgroup_is_frozen(&c));
    put(root, "freezer/ns/c/freezer.state", "THAWED\n");
    assert_false(cgroup_is_frozen(&c));
    cgroup_done(&c);
    assert_int_equal(cgroup_init_text(&c, "0::/ns/c\n", root, true), 0);
    put(root, "ns/c/cgroup.freeze", "1\n");
    assert_true(cgroup_is_frozen(&c));
    cgroup_thaw(&c);
    assert_false(cgroup_is_frozen(&c));
    cgroup_done(&c);
}

/* What a container has frozen below its own group. */
static void test_frozen_below(void **state)
{
    const char *root = *state;
    struct cgroup c = {};

    assert_int_equal(cgroup_init_text(&c, "3:freezer:/ns/c\n0::/\n", root, false), 0);
    assert_false(cgroup_outlasts_kill(&c));
    put(root, "freezer/ns/c/freezer.state", "THAWED\n");
    put(root, "freezer/ns/c/in/most/freezer.state", "FROZEN\n");
    assert_true(cgroup_outlasts_kill(&c));
    cgroup_let_end(&c);
    assert_false(cgroup_outlasts_kill(&c));
    cgroup_done(&c);
    /* SIGKILL ends what is frozen in cgroup v2. */
    assert_int_equal(cgroup_init_text(&c, "0::/ns/c\n", root, true), 0);
    put(root, "ns/c/cgroup.freeze", "1\n");
    assert_false(cgroup_outlasts_kill(&c));
    cgroup_done(&c);
}

static unsigned kills;

static void on_kill(struct oom *oom)
{
    kills++;
}

/* A file that cannot be watched, as here, can still be looked at. */
static void test_oom_counter(void **state)
{
    const char *root = *state;
    struct event_loop loop;
    struct oom oom = OOM_INIT;
    struct cgroup c = {};

    assert_int_equal(event_loop_init(&loop), 0);
    assert_int_equal(cgroup_init_text(&c, "0::/ns/c\n", root, true), 0);
    assert_int_equal(oom_watch(&oom, &loop, &c, on_kill), 0); /* no such controller */
    oom_check(&oom);
    put(root, "ns/c/memory.events", "oom 1\noom_kill 2\n");
    assert_int_equal(oom_watch(&oom, &loop, &c, on_kill), -EPERM);
    oom_check(&oom);
    assert_int_equal(kills, 0);
    put(root, "ns/c/memory.events", "oom 9\noom_kill 4\n");
    oom_check(&oom);
    oom_check(&oom);
    assert_int_equal(kills, 1);
    put(root, "ns/c/memory.events", "garbage\noom_kill x\n");
    oom_check(&oom);
    assert_int_equal(kills, 1);
    oom_done(&oom);
    cgroup_done(&c);
    event_loop_done(&loop);
}

static void test_nothing(void **state)
{
    struct cgroup c = {};
    struct err e = ERR_INIT;
    Google__Protobuf__Any *any = NULL;

    assert_true(cgroup_stats(&c, &any, &e) < 0);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(cgroup_init_text(&c, "1:memory:/gone\n0::/../x\n", *state, false), 0);
    assert_true(cgroup_stats(&c, &any, &e) < 0);
    assert_string_equal(e.msg, "cgroup does not exist: not found");
    assert_null(cgroup_dir(&c, NULL));
    assert_null(cgroup_dir(&c, "pids"));
    cgroup_done(&c);
    /* Neither the root group nor nonsense is a container's. */
    assert_int_equal(cgroup_init_text(&c, "1:memory:/\nx\n2:pids\n3:cpu:relative\n", *state, false),
                     0);
    assert_null(cgroup_dir(&c, "memory"));
    assert_null(cgroup_dir(&c, "pids"));
    assert_null(cgroup_dir(&c, "cpu"));
    cgroup_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_v1, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_v2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_v2_all, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_frozen, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_frozen_below, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_oom_counter, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_nothing, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

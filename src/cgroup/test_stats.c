/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "base/fs.h"
#include "base/str.h"
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
        cmocka_unit_test_setup_teardown(test_nothing, make_root, remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

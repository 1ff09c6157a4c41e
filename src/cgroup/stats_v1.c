/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/str.h"
#include "cgroup/stats.h"
#include "cgroups.v1.pb-c.h"
#include "wire/pb.h"

typedef Pb__Cgroups1__Metrics Metrics;

#define MEMORY(field, name)                             \
    {                                                   \
        name, offsetof(Pb__Cgroups1__MemoryStat, field) \
    }

static const struct stats_field memory_fields[] = {
    MEMORY(cache, "cache"),
    MEMORY(rss, "rss"),
    MEMORY(rss_huge, "rss_huge"),
    MEMORY(mapped_file, "mapped_file"),
    MEMORY(dirty, "dirty"),
    MEMORY(writeback, "writeback"),
    MEMORY(pg_pg_in, "pgpgin"),
    MEMORY(pg_pg_out, "pgpgout"),
    MEMORY(pg_fault, "pgfault"),
    MEMORY(pg_maj_fault, "pgmajfault"),
    MEMORY(inactive_anon, "inactive_anon"),
    MEMORY(active_anon, "active_anon"),
    MEMORY(inactive_file, "inactive_file"),
    MEMORY(active_file, "active_file"),
    MEMORY(unevictable, "unevictable"),
    MEMORY(hierarchical_memory_limit, "hierarchical_memory_limit"),
    MEMORY(hierarchical_swap_limit, "hierarchical_memsw_limit"),
    MEMORY(total_cache, "total_cache"),
    MEMORY(total_rss, "total_rss"),
    MEMORY(total_rss_huge, "total_rss_huge"),
    MEMORY(total_mapped_file, "total_mapped_file"),
    MEMORY(total_dirty, "total_dirty"),
    MEMORY(total_writeback, "total_writeback"),
    MEMORY(total_pg_pg_in, "total_pgpgin"),
    MEMORY(total_pg_pg_out, "total_pgpgout"),
    MEMORY(total_pg_fault, "total_pgfault"),
    MEMORY(total_pg_maj_fault, "total_pgmajfault"),
    MEMORY(total_inactive_anon, "total_inactive_anon"),
    MEMORY(total_active_anon, "total_active_anon"),
    MEMORY(total_inactive_file, "total_inactive_file"),
    MEMORY(total_active_file, "total_active_file"),
    MEMORY(total_unevictable, "total_unevictable"),
};

static const struct stats_field oom_fields[] = {
    {"oom_kill_disable", offsetof(Pb__Cgroups1__MemoryOomControl, oom_kill_disable)},
    {"under_oom", offsetof(Pb__Cgroups1__MemoryOomControl, under_oom)},
    {"oom_kill", offsetof(Pb__Cgroups1__MemoryOomControl, oom_kill)},
};

static const struct stats_field throttle_fields[] = {
    {"nr_periods", offsetof(Pb__Cgroups1__Throttle, periods)},
    {"nr_throttled", offsetof(Pb__Cgroups1__Throttle, throttled_periods)},
    {"throttled_time", offsetof(Pb__Cgroups1__Throttle, throttled_time)},
};

static Pb__Cgroups1__MemoryEntry *read_memory_entry(const char *dir, const char *name)
{
    char limit[64], usage[64], max[64], failcnt[64];

    snprintf(limit, sizeof(limit), "memory.%slimit_in_bytes", name);
    snprintf(usage, sizeof(usage), "memory.%susage_in_bytes", name);
    snprintf(max, sizeof(max), "memory.%smax_usage_in_bytes", name);
    snprintf(failcnt, sizeof(failcnt), "memory.%sfailcnt", name);
    _free_ char *present = stats_read(dir, usage);
    Pb__Cgroups1__MemoryEntry *entry =
        present ? stats_message(&pb__cgroups1__memory_entry__descriptor) : NULL;
    if (entry) {
        entry->limit = stats_number(dir, limit, 0);
        entry->usage = stats_number(dir, usage, 0);
        entry->max = stats_number(dir, max, 0);
        entry->failcnt = stats_number(dir, failcnt, 0);
    }
    return entry;
}

static void read_memory(const struct cgroup *c, Metrics *m)
{
    _free_ char *dir = cgroup_dir(c, "memory");

    if (!dir || !fs_exists(AT_FDCWD, dir))
        return;
    m->memory = stats_message(&pb__cgroups1__memory_stat__descriptor);
    if (m->memory) {
        stats_fields(dir, "memory.stat", memory_fields, ARRAY_SIZE(memory_fields), m->memory);
        m->memory->usage = read_memory_entry(dir, "");
        m->memory->swap = read_memory_entry(dir, "memsw.");
        m->memory->kernel = read_memory_entry(dir, "kmem.");
        m->memory->kernel_tcp = read_memory_entry(dir, "kmem.tcp.");
    }
    m->memory_oom_control = stats_message(&pb__cgroups1__memory_oom_control__descriptor);
    if (m->memory_oom_control)
        stats_fields(dir, "memory.oom_control", oom_fields, ARRAY_SIZE(oom_fields),
                     m->memory_oom_control);
}

static void read_pids(const struct cgroup *c, Metrics *m)
{
    _free_ char *dir = cgroup_dir(c, "pids");

    if (!dir || !fs_exists(AT_FDCWD, dir))
        return;
    m->pids = stats_message(&pb__cgroups1__pids_stat__descriptor);
    if (m->pids) {
        m->pids->current = stats_number(dir, "pids.current", 0);
        m->pids->limit = stats_number(dir, "pids.max", 0);
    }
}

static void read_per_cpu(const char *dir, Pb__Cgroups1__CPUUsage *usage)
{
    _free_ char *text = stats_read(dir, "cpuacct.usage_percpu");
    char *rest = text;
    uint64_t value;

    if (!text)
        return;
    rest[strcspn(rest, "\n")] = '\0';
    size_t room = strlen(text) / 2 + 1; /* a digit and a space each at least */
    usage->per_cpu = calloc(room, sizeof(*usage->per_cpu));
    if (!usage->per_cpu)
        return;
    for (const char *word; usage->n_per_cpu < room && (word = stats_word(&rest));)
        if (str_to_u64(word, &value) == 0)
            usage->per_cpu[usage->n_per_cpu++] = value;
}

/* cpuacct.stat counts in ticks of 1/100 s for user space, whatever the kernel's own. */
#define NANOSECONDS_A_TICK 10000000

static void read_cpu(const struct cgroup *c, Metrics *m)
{
    static const struct stats_field tick_fields[] = {
        {"user", offsetof(Pb__Cgroups1__CPUUsage, user)},
        {"system", offsetof(Pb__Cgroups1__CPUUsage, kernel)},
    };
    _free_ char *cpu = cgroup_dir(c, "cpu");
    _free_ char *cpuacct = cgroup_dir(c, "cpuacct");
    Pb__Cgroups1__CPUUsage *usage;

    m->cpu = stats_message(&pb__cgroups1__cpustat__descriptor);
    if (!m->cpu)
        return;
    m->cpu->throttling = stats_message(&pb__cgroups1__throttle__descriptor);
    if (m->cpu->throttling)
        stats_fields(cpu, "cpu.stat", throttle_fields, ARRAY_SIZE(throttle_fields),
                     m->cpu->throttling);
    m->cpu->usage = usage = stats_message(&pb__cgroups1__cpuusage__descriptor);
    if (!usage)
        return;
    usage->total = stats_number(cpuacct, "cpuacct.usage", 0);
    stats_fields(cpuacct, "cpuacct.stat", tick_fields, ARRAY_SIZE(tick_fields), usage);
    usage->user *= NANOSECONDS_A_TICK;
    usage->kernel *= NANOSECONDS_A_TICK;
    read_per_cpu(cpuacct, usage);
}

/* "<major>:<minor> [<op>] <value>"; the closing "Total <value>" has no device. */
static void read_blkio_file(const char *dir, const char *file, size_t *n, void *items)
{
    _free_ char *text = stats_read(dir, file);
    char *rest = text;

    for (char *line; text && (line = stats_line(&rest));) {
        char *device = stats_word(&line);
        char *op = stats_word(&line);
        char *number = stats_word(&line);
        char *colon = device ? strchr(device, ':') : NULL;
        uint64_t major, minor, value;
        if (!number) {
            number = op;
            op = NULL;
        }
        if (!colon || !number)
            continue;
        *colon = '\0';
        if (str_to_u64(device, &major) < 0 || str_to_u64(colon + 1, &minor) < 0 ||
            str_to_u64(number, &value) < 0)
            continue;
        Pb__Cgroups1__BlkIOEntry *entry =
            stats_append(n, items, &pb__cgroups1__blk_ioentry__descriptor);
        if (!entry)
            return;
        entry->major = major;
        entry->minor = minor;
        entry->value = value;
        if (op && (op = strdup(op)))
            entry->op = op;
    }
}

static void read_blkio(const struct cgroup *c, Metrics *m)
{
    _free_ char *dir = cgroup_dir(c, "blkio");
    Pb__Cgroups1__BlkIOStat *b;

    if (!dir || !fs_exists(AT_FDCWD, dir))
        return;
    m->blkio = b = stats_message(&pb__cgroups1__blk_iostat__descriptor);
    if (!b)
        return;
    /* The throttling layer counts where no CFQ does. */
    read_blkio_file(dir, "blkio.throttle.io_service_bytes_recursive",
                    &b->n_io_service_bytes_recursive, &b->io_service_bytes_recursive);
    if (b->n_io_service_bytes_recursive == 0)
        read_blkio_file(dir, "blkio.throttle.io_service_bytes", &b->n_io_service_bytes_recursive,
                        &b->io_service_bytes_recursive);
    read_blkio_file(dir, "blkio.throttle.io_serviced_recursive", &b->n_io_serviced_recursive,
                    &b->io_serviced_recursive);
    if (b->n_io_serviced_recursive == 0)
        read_blkio_file(dir, "blkio.throttle.io_serviced", &b->n_io_serviced_recursive,
                        &b->io_serviced_recursive);
    read_blkio_file(dir, "blkio.io_queued_recursive", &b->n_io_queued_recursive,
                    &b->io_queued_recursive);
    read_blkio_file(dir, "blkio.io_service_time_recursive", &b->n_io_service_time_recursive,
                    &b->io_service_time_recursive);
    read_blkio_file(dir, "blkio.io_wait_time_recursive", &b->n_io_wait_time_recursive,
                    &b->io_wait_time_recursive);
    read_blkio_file(dir, "blkio.io_merged_recursive", &b->n_io_merged_recursive,
                    &b->io_merged_recursive);
    read_blkio_file(dir, "blkio.time_recursive", &b->n_io_time_recursive, &b->io_time_recursive);
    read_blkio_file(dir, "blkio.sectors_recursive", &b->n_sectors_recursive, &b->sectors_recursive);
}

static void read_hugetlb(const struct cgroup *c, Metrics *m)
{
    _free_ char *dir = cgroup_dir(c, "hugetlb");
    DIR *d = dir ? opendir(dir) : NULL;

    if (!d)
        return;
    for (const struct dirent *entry; (entry = readdir(d));) {
        const char *size = str_after_prefix(entry->d_name, "hugetlb.");
        char name[128];
        if (!size || !str_has_suffix(size, ".usage_in_bytes") || strstr(size, "rsvd"))
            continue;
        int n = (int)(strlen(size) - strlen(".usage_in_bytes"));
        Pb__Cgroups1__HugetlbStat *h =
            n < 32
                ? stats_append(&m->n_hugetlb, &m->hugetlb, &pb__cgroups1__hugetlb_stat__descriptor)
                : NULL;
        if (!h)
            break;
        h->usage = stats_number(dir, entry->d_name, 0);
        snprintf(name, sizeof(name), "hugetlb.%.*s.max_usage_in_bytes", n, size);
        h->max = stats_number(dir, name, 0);
        snprintf(name, sizeof(name), "hugetlb.%.*s.failcnt", n, size);
        h->failcnt = stats_number(dir, name, 0);
        char *page_size = strndup(size, (size_t)n);
        if (page_size)
            h->pagesize = page_size;
    }
    closedir(d);
}

static void read_rdma_file(const char *dir, const char *file, size_t *n, void *items)
{
    _free_ char *text = stats_read(dir, file);
    char *rest = text;
    struct stats_rdma r;

    for (char *line; text && (line = stats_line(&rest));) {
        if (!stats_rdma_line(line, &r))
            continue;
        Pb__Cgroups1__RdmaEntry *entry =
            stats_append(n, items, &pb__cgroups1__rdma_entry__descriptor);
        char *device = entry ? strdup(r.device) : NULL;
        if (!device)
            return;
        entry->device = device;
        entry->hca_handles = r.hca_handles;
        entry->hca_objects = r.hca_objects;
    }
}

static void read_rdma(const struct cgroup *c, Metrics *m)
{
    _free_ char *dir = cgroup_dir(c, "rdma");

    if (!dir || !fs_exists(AT_FDCWD, dir))
        return;
    m->rdma = stats_message(&pb__cgroups1__rdma_stat__descriptor);
    if (!m->rdma)
        return;
    read_rdma_file(dir, "rdma.current", &m->rdma->n_current, &m->rdma->current);
    read_rdma_file(dir, "rdma.max", &m->rdma->n_limit, &m->rdma->limit);
}

int stats_v1(const struct cgroup *c, Google__Protobuf__Any **ret, struct err *e)
{
    Metrics *m = stats_message(&pb__cgroups1__metrics__descriptor);

    if (!m)
        return err_oom(e);
    read_hugetlb(c, m);
    read_pids(c, m);
    read_cpu(c, m);
    read_memory(c, m);
    read_blkio(c, m);
    read_rdma(c, m);
    *ret = pb_any_pack(&m->base);
    pb_free(&m->base);
    return *ret ? 0 : err_oom(e);
}

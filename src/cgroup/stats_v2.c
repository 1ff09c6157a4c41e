/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/str.h"
#include "cgroup/stats.h"
#include "cgroups.v2.pb-c.h"
#include "wire/pb.h"

typedef Pb__Cgroups2__Metrics Metrics;

#define CPU(field)                                     \
    {                                                  \
#field, offsetof(Pb__Cgroups2__CPUStat, field) \
    }
#define MEMORY(field, name)                             \
    {                                                   \
        name, offsetof(Pb__Cgroups2__MemoryStat, field) \
    }
#define EVENT(field)                                        \
    {                                                       \
#field, offsetof(Pb__Cgroups2__MemoryEvents, field) \
    }

static const struct stats_field cpu_fields[] = {
    CPU(usage_usec),   CPU(user_usec),      CPU(system_usec), CPU(nr_periods),
    CPU(nr_throttled), CPU(throttled_usec), CPU(nr_bursts),   CPU(burst_usec),
};

static const struct stats_field memory_fields[] = {
    MEMORY(anon, "anon"),
    MEMORY(file, "file"),
    MEMORY(kernel_stack, "kernel_stack"),
    MEMORY(slab, "slab"),
    MEMORY(sock, "sock"),
    MEMORY(shmem, "shmem"),
    MEMORY(file_mapped, "file_mapped"),
    MEMORY(file_dirty, "file_dirty"),
    MEMORY(file_writeback, "file_writeback"),
    MEMORY(anon_thp, "anon_thp"),
    MEMORY(inactive_anon, "inactive_anon"),
    MEMORY(active_anon, "active_anon"),
    MEMORY(inactive_file, "inactive_file"),
    MEMORY(active_file, "active_file"),
    MEMORY(unevictable, "unevictable"),
    MEMORY(slab_reclaimable, "slab_reclaimable"),
    MEMORY(slab_unreclaimable, "slab_unreclaimable"),
    MEMORY(pgfault, "pgfault"),
    MEMORY(pgmajfault, "pgmajfault"),
    MEMORY(workingset_refault, "workingset_refault"),
    MEMORY(workingset_activate, "workingset_activate"),
    MEMORY(workingset_nodereclaim, "workingset_nodereclaim"),
    MEMORY(pgrefill, "pgrefill"),
    MEMORY(pgscan, "pgscan"),
    MEMORY(pgsteal, "pgsteal"),
    MEMORY(pgactivate, "pgactivate"),
    MEMORY(pgdeactivate, "pgdeactivate"),
    MEMORY(pglazyfree, "pglazyfree"),
    MEMORY(pglazyfreed, "pglazyfreed"),
    MEMORY(thp_fault_alloc, "thp_fault_alloc"),
    MEMORY(thp_collapse_alloc, "thp_collapse_alloc"),
};

static const struct stats_field event_fields[] = {
    EVENT(low), EVENT(high), EVENT(max), EVENT(oom), EVENT(oom_kill), EVENT(oom_group_kill),
};

/* "<kind> avg10=0.00 avg60=0.00 avg300=0.00 total=0": hundredths, so that no locale and no floating
 * point parser is needed. */
static double parse_hundredths(const char *s)
{
    uint64_t whole = 0, part = 0;

    for (; *s >= '0' && *s <= '9' && whole < 100000; s++)
        whole = whole * 10 + (uint64_t)(*s - '0');
    if (s[0] == '.' && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9')
        part = (uint64_t)(s[1] - '0') * 10 + (uint64_t)(s[2] - '0');
    return (double)(whole * 100 + part) / 100.0;
}

static Pb__Cgroups2__PSIData *parse_pressure(char *line)
{
    Pb__Cgroups2__PSIData *p = stats_message(&pb__cgroups2__psidata__descriptor);

    for (const char *word, *v; p && (word = stats_word(&line));) {
        if ((v = str_after_prefix(word, "avg10=")))
            p->avg10 = parse_hundredths(v);
        else if ((v = str_after_prefix(word, "avg60=")))
            p->avg60 = parse_hundredths(v);
        else if ((v = str_after_prefix(word, "avg300=")))
            p->avg300 = parse_hundredths(v);
        else if ((v = str_after_prefix(word, "total=")) && str_to_u64(v, &p->total) < 0)
            p->total = 0;
    }
    return p;
}

static Pb__Cgroups2__PSIStats *read_pressure(const char *dir, const char *file)
{
    _free_ char *text = stats_read(dir, file);
    char *rest = text;
    Pb__Cgroups2__PSIStats *psi = text ? stats_message(&pb__cgroups2__psistats__descriptor) : NULL;

    for (char *line; psi && (line = stats_line(&rest));) {
        const char *kind = stats_word(&line);
        if (str_eq(kind, "some") && !psi->some)
            psi->some = parse_pressure(line);
        else if (str_eq(kind, "full") && !psi->full)
            psi->full = parse_pressure(line);
    }
    return psi;
}

static void read_memory(const char *dir, Metrics *m)
{
    Pb__Cgroups2__MemoryStat *s = stats_message(&pb__cgroups2__memory_stat__descriptor);

    m->memory = s;
    if (!s)
        return;
    stats_fields(dir, "memory.stat", memory_fields, ARRAY_SIZE(memory_fields), s);
    s->usage = stats_number(dir, "memory.current", 0);
    s->usage_limit = stats_number(dir, "memory.max", UINT64_MAX);
    s->max_usage = stats_number(dir, "memory.peak", 0);
    s->swap_usage = stats_number(dir, "memory.swap.current", 0);
    s->swap_limit = stats_number(dir, "memory.swap.max", UINT64_MAX);
    s->swap_max_usage = stats_number(dir, "memory.swap.peak", 0);
    s->psi = read_pressure(dir, "memory.pressure");
    m->memory_events = stats_message(&pb__cgroups2__memory_events__descriptor);
    if (m->memory_events)
        stats_fields(dir, "memory.events", event_fields, ARRAY_SIZE(event_fields),
                     m->memory_events);
}

static void read_cpu_and_pids(const char *dir, Metrics *m)
{
    m->cpu = stats_message(&pb__cgroups2__cpustat__descriptor);
    if (m->cpu) {
        stats_fields(dir, "cpu.stat", cpu_fields, ARRAY_SIZE(cpu_fields), m->cpu);
        m->cpu->psi = read_pressure(dir, "cpu.pressure");
    }
    m->pids = stats_message(&pb__cgroups2__pids_stat__descriptor);
    if (m->pids) {
        m->pids->current = stats_number(dir, "pids.current", 0);
        m->pids->limit = stats_number(dir, "pids.max", UINT64_MAX);
    }
}

/* "<major>:<minor> rbytes=N wbytes=N rios=N wios=N ..." */
static void read_io(const char *dir, Metrics *m)
{
    static const struct stats_field fields[] = {
        {"rbytes=", offsetof(Pb__Cgroups2__IOEntry, rbytes)},
        {"wbytes=", offsetof(Pb__Cgroups2__IOEntry, wbytes)},
        {"rios=", offsetof(Pb__Cgroups2__IOEntry, rios)},
        {"wios=", offsetof(Pb__Cgroups2__IOEntry, wios)},
    };
    _free_ char *text = stats_read(dir, "io.stat");
    char *rest = text;

    m->io = stats_message(&pb__cgroups2__iostat__descriptor);
    if (!m->io)
        return;
    m->io->psi = read_pressure(dir, "io.pressure");
    for (char *line; text && (line = stats_line(&rest));) {
        char *device = stats_word(&line);
        char *colon = device ? strchr(device, ':') : NULL;
        uint64_t major, minor, value;
        if (!colon)
            continue;
        *colon = '\0';
        if (str_to_u64(device, &major) < 0 || str_to_u64(colon + 1, &minor) < 0)
            continue;
        Pb__Cgroups2__IOEntry *entry =
            stats_append(&m->io->n_usage, &m->io->usage, &pb__cgroups2__ioentry__descriptor);
        if (!entry)
            return;
        entry->major = major;
        entry->minor = minor;
        for (const char *word; (word = stats_word(&line));)
            for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                const char *number = str_after_prefix(word, fields[i].name);
                if (number && str_to_u64(number, &value) == 0)
                    *(uint64_t *)((char *)entry + fields[i].at) = value;
            }
    }
}

static void read_hugetlb(const char *dir, Metrics *m)
{
    DIR *d = opendir(dir);

    if (!d)
        return;
    for (const struct dirent *entry; (entry = readdir(d));) {
        const char *size = str_after_prefix(entry->d_name, "hugetlb.");
        char name[128];
        if (!size || !str_has_suffix(size, ".current") || strstr(size, "rsvd"))
            continue;
        int n = (int)(strlen(size) - strlen(".current"));
        Pb__Cgroups2__HugeTlbStat *h =
            n < 32
                ? stats_append(&m->n_hugetlb, &m->hugetlb, &pb__cgroups2__huge_tlb_stat__descriptor)
                : NULL;
        if (!h)
            break;
        h->current = stats_number(dir, entry->d_name, 0);
        snprintf(name, sizeof(name), "hugetlb.%.*s.max", n, size);
        h->max = stats_number(dir, name, UINT64_MAX);
        snprintf(name, sizeof(name), "hugetlb.%.*s.events", n, size);
        const struct stats_field events[] = {{"max", offsetof(Pb__Cgroups2__HugeTlbStat, failcnt)}};
        stats_fields(dir, name, events, ARRAY_SIZE(events), h);
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
        Pb__Cgroups2__RdmaEntry *entry =
            stats_append(n, items, &pb__cgroups2__rdma_entry__descriptor);
        char *device = entry ? strdup(r.device) : NULL;
        if (!device)
            return;
        entry->device = device;
        entry->hca_handles = r.hca_handles;
        entry->hca_objects = r.hca_objects;
    }
}

static void read_rdma(const char *dir, Metrics *m)
{
    m->rdma = stats_message(&pb__cgroups2__rdma_stat__descriptor);
    if (!m->rdma)
        return;
    read_rdma_file(dir, "rdma.current", &m->rdma->n_current, &m->rdma->current);
    read_rdma_file(dir, "rdma.max", &m->rdma->n_limit, &m->rdma->limit);
}

int stats_v2(const struct cgroup *c, Google__Protobuf__Any **ret, struct err *e)
{
    _free_ char *dir = cgroup_dir(c, NULL);
    Metrics *m = stats_message(&pb__cgroups2__metrics__descriptor);

    if (!m || !dir) {
        free(m);
        return err_oom(e);
    }
    read_cpu_and_pids(dir, m);
    read_memory(dir, m);
    read_rdma(dir, m);
    read_io(dir, m);
    read_hugetlb(dir, m);
    *ret = pb_any_pack(&m->base);
    pb_free(&m->base);
    return *ret ? 0 : err_oom(e);
}

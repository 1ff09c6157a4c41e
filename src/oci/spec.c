/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/spec.h"

#include <jansson.h>

#include "base/str.h"
#include "oci/document.h"
#include "oci/spec_caps.h"

/*
 * jansson's setters take the new value also when they fail, and refuse NULL: so values are built
 * bottom up and one flag remembers that something was out of memory.
 */
struct builder {
    bool failed;
};

static void set(struct builder *b, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new_nocheck(object, key, value) < 0)
        b->failed = true;
}

static void add(struct builder *b, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) < 0)
        b->failed = true;
}

static json_t *strings(struct builder *b, const char *const *v)
{
    json_t *array = json_array();

    for (; v && *v; v++)
        add(b, array, json_string(*v));
    return array;
}

#define STRINGS(b, ...) strings(b, (const char *const[]){__VA_ARGS__, NULL})

static void set_user(struct builder *b, json_t *process, const struct user *u)
{
    json_t *user = json_object(), *gids;

    set(b, user, "uid", json_integer(u ? u->uid : 0));
    set(b, user, "gid", json_integer(u ? u->gid : 0));
    if (u && u->n_gids > 0) {
        gids = json_array();
        for (size_t i = 0; i < u->n_gids; i++)
            add(b, gids, json_integer(u->gids[i]));
        set(b, user, "additionalGids", gids);
    }
    set(b, process, "user", user);
}

/* The inheritable and ambient sets stay empty. */
static void set_caps(struct builder *b, json_t *process, uint64_t mask)
{
    static const char *const sets[] = {"bounding", "effective", "permitted"};
    json_t *caps = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
        json_t *names = json_array();
        for (unsigned cap = 0; cap < SPEC_CAPS_KNOWN; cap++) {
            if (mask & (UINT64_C(1) << cap))
                add(b, names, json_string(spec_cap_names[cap]));
        }
        set(b, caps, sets[i], names);
    }
    set(b, process, "capabilities", caps);
}

static void set_process(struct builder *b, json_t *root, const struct spec *s)
{
    json_t *process = json_object(), *limits = json_array(), *limit = json_object();
    json_int_t files = s->open_files ? (json_int_t)s->open_files : 1024;

    if (s->terminal)
        set(b, process, "terminal", json_true());
    set_user(b, process, s->user);
    set(b, process, "args", strings(b, (const char *const *)s->args));
    set(b, process, "env", strings(b, (const char *const *)s->env));
    set(b, process, "cwd", json_string(s->cwd));
    set_caps(b, process, s->caps);
    set(b, limit, "type", json_string("RLIMIT_NOFILE"));
    set(b, limit, "hard", json_integer(files));
    set(b, limit, "soft", json_integer(files));
    add(b, limits, limit);
    set(b, process, "rlimits", limits);
    if (s->no_new_privileges)
        set(b, process, "noNewPrivileges", json_true());
    set(b, root, "process", process);
}

static void add_mount(struct builder *b, json_t *mounts, const char *destination, const char *type,
                      const char *source, json_t *options)
{
    json_t *m = json_object();

    set(b, m, "destination", json_string(destination));
    set(b, m, "type", json_string(type));
    set(b, m, "source", json_string(source));
    set(b, m, "options", options);
    add(b, mounts, m);
}

static void set_mounts(struct builder *b, json_t *root, const struct spec *s)
{
    json_t *mounts = json_array();

    add_mount(b, mounts, "/proc", "proc", "proc", STRINGS(b, "nosuid", "noexec", "nodev"));
    add_mount(b, mounts, "/dev", "tmpfs", "tmpfs",
              STRINGS(b, "nosuid", "strictatime", "mode=755", "size=65536k"));
    add_mount(b, mounts, "/dev/pts", "devpts", "devpts",
              STRINGS(b, "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"));
    add_mount(b, mounts, "/dev/shm", "tmpfs", "shm",
              STRINGS(b, "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"));
    add_mount(b, mounts, "/dev/mqueue", "mqueue", "mqueue",
              STRINGS(b, "nosuid", "noexec", "nodev"));
    add_mount(b, mounts, "/sys", "sysfs", "sysfs",
              STRINGS(b, "nosuid", "noexec", "nodev", s->privileged ? "rw" : "ro"));
    if (s->cgroup_namespace)
        add_mount(b, mounts, "/sys/fs/cgroup", "cgroup", "cgroup",
                  STRINGS(b, "nosuid", "noexec", "nodev", "relatime", s->privileged ? "rw" : "ro"));
    add_mount(b, mounts, "/run", "tmpfs", "tmpfs",
              STRINGS(b, "nosuid", "strictatime", "mode=755", "size=65536k"));
    if (s->network == SPEC_NETWORK_HOST) {
        add_mount(b, mounts, "/etc/hosts", "bind", "/etc/hosts", STRINGS(b, "rbind", "ro"));
        add_mount(b, mounts, "/etc/resolv.conf", "bind", "/etc/resolv.conf",
                  STRINGS(b, "rbind", "ro"));
    }
    for (size_t i = 0; s->mounts && i < s->mounts->n; i++) {
        const struct mount *m = &s->mounts->mounts[i];
        add_mount(b, mounts, m->target, m->type, m->source,
                  strings(b, (const char *const *)m->options));
    }
    set(b, root, "mounts", mounts);
}

static void allow_device(struct builder *b, json_t *devices, int major, int minor)
{
    json_t *rule = json_object();

    set(b, rule, "allow", json_true());
    set(b, rule, "type", json_string("c"));
    set(b, rule, "major", json_integer(major));
    if (minor >= 0)
        set(b, rule, "minor", json_integer(minor));
    set(b, rule, "access", json_string("rwm"));
    add(b, devices, rule);
}

static json_t *device_rules(struct builder *b, const struct spec *s)
{
    /* null, random, full, tty, zero, urandom, console, /dev/pts, ptmx */
    static const int allowed[][2] = {{1, 3}, {1, 8}, {1, 7},    {5, 0}, {1, 5},
                                     {1, 9}, {5, 1}, {136, -1}, {5, 2}};
    json_t *devices = json_array(), *rule = json_object();

    set(b, rule, "allow", json_boolean(s->privileged));
    set(b, rule, "access", json_string("rwm"));
    add(b, devices, rule);
    for (size_t i = 0; !s->privileged && i < ARRAY_SIZE(allowed); i++)
        allow_device(b, devices, allowed[i][0], allowed[i][1]);
    return devices;
}

static void set_resources(struct builder *b, json_t *linux_, const struct spec *s)
{
    json_t *resources = json_object(), *part;

    set(b, resources, "devices", device_rules(b, s));
    if (s->memory_bytes) {
        part = json_object();
        set(b, part, "limit", json_integer((json_int_t)s->memory_bytes));
        set(b, resources, "memory", part);
    }
    if (s->cpu_quota_us) {
        part = json_object();
        set(b, part, "quota", json_integer(s->cpu_quota_us));
        set(b, part, "period", json_integer((json_int_t)s->cpu_period_us));
        set(b, resources, "cpu", part);
    }
    if (s->pids_limit) {
        part = json_object();
        set(b, part, "limit", json_integer(s->pids_limit));
        set(b, resources, "pids", part);
    }
    set(b, linux_, "resources", resources);
}

static void add_namespace(struct builder *b, json_t *namespaces, const char *type)
{
    json_t *n = json_object();

    set(b, n, "type", json_string(type));
    add(b, namespaces, n);
}

static void set_devices(struct builder *b, json_t *linux_, const struct spec *s)
{
    json_t *devices = json_array();

    for (size_t i = 0; i < s->n_devices; i++) {
        const struct spec_device *d = &s->devices[i];
        json_t *node = json_object();

        set(b, node, "path", json_string(d->path));
        set(b, node, "type", json_stringn_nocheck(&d->type, 1));
        set(b, node, "major", json_integer(d->major));
        set(b, node, "minor", json_integer(d->minor));
        set(b, node, "fileMode", json_integer(d->mode));
        set(b, node, "uid", json_integer(d->uid));
        set(b, node, "gid", json_integer(d->gid));
        add(b, devices, node);
    }
    set(b, linux_, "devices", devices);
}

static void set_linux(struct builder *b, json_t *root, const struct spec *s)
{
    json_t *linux_ = json_object(), *namespaces = json_array();
    _free_ char *cgroup = str_printf("/%s/%s", s->namespace_, s->id);

    set_resources(b, linux_, s);
    set(b, linux_, "cgroupsPath", json_string(cgroup));
    add_namespace(b, namespaces, "pid");
    add_namespace(b, namespaces, "ipc");
    add_namespace(b, namespaces, "uts");
    add_namespace(b, namespaces, "mount");
    if (s->network == SPEC_NETWORK_PRIVATE)
        add_namespace(b, namespaces, "network");
    if (s->cgroup_namespace)
        add_namespace(b, namespaces, "cgroup");
    set(b, linux_, "namespaces", namespaces);
    if (s->n_devices > 0)
        set_devices(b, linux_, s);
    if (!s->privileged) {
        set(b, linux_, "maskedPaths",
            STRINGS(b, "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                    "/proc/sched_debug", "/sys/firmware", "/sys/devices/virtual/powercap",
                    "/proc/scsi"));
        set(b, linux_, "readonlyPaths",
            STRINGS(b, "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"));
    }
    set(b, root, "linux", linux_);
}

int spec_format(const struct spec *s, char **ret, struct err *e)
{
    struct builder b = {};
    _json_ json_t *root = json_object();
    json_t *rootfs = json_object(), *annotations;
    char *text;

    set(&b, root, "ociVersion", json_string(SPEC_VERSION));
    set_process(&b, root, s);
    set(&b, rootfs, "path", json_string("rootfs"));
    if (s->read_only)
        set(&b, rootfs, "readonly", json_true());
    set(&b, root, "root", rootfs);
    if (!str_empty(s->hostname))
        set(&b, root, "hostname", json_string(s->hostname));
    set_mounts(&b, root, s);
    if (s->annotations && s->annotations->n > 0) {
        annotations = json_object();
        STRMAP_FOREACH (a, s->annotations)
            set(&b, annotations, a->key, json_string(a->value));
        set(&b, root, "annotations", annotations);
    }
    set_linux(&b, root, s);
    text = b.failed ? NULL : json_dumps(root, JSON_COMPACT);
    if (!text)
        return err_set(
            e, ERR_INVALID_ARGUMENT,
            "write the runtime specification: a string is no UTF-8 text: invalid argument");
    *ret = text;
    return 0;
}

static json_t *merged_env(struct builder *b, const json_t *old, char *const *env)
{
    json_t *merged = json_array(), *value;
    size_t i;

    json_array_foreach(old, i, value)
    {
        const char *s = json_string_value(value);
        size_t n = s ? strcspn(s, "=") + 1 : 0;
        bool replaced = false;

        for (char *const *new = env; s &&new &&*new; new ++)
            replaced = replaced || strncmp(*new, s, n) == 0;
        if (!replaced)
            add(b, merged, json_incref(value));
    }
    for (; env && *env; env++)
        add(b, merged, json_string(*env));
    return merged;
}

int spec_exec_format(const void *spec, size_t n, const struct spec_exec *x, char **ret,
                     struct err *e)
{
    struct builder b = {};
    _json_ json_t *root = NULL;
    json_t *process = NULL;
    int r = document_parse(spec, n, SPEC_MAX, "runtime specification", &root, e);

    if (r == 0)
        r = document_object(root, "process", &process, e);
    if (r < 0)
        return r;
    if (!process)
        return err_set(e, ERR_FAILED_PRECONDITION,
                       "the container's specification has no process: failed precondition");
    if (x->args)
        set(&b, process, "args", strings(&b, (const char *const *)x->args));
    set(&b, process, "env", merged_env(&b, json_object_get(process, "env"), x->env));
    if (x->cwd)
        set(&b, process, "cwd", json_string(x->cwd));
    if (x->user)
        set_user(&b, process, x->user);
    if (x->privileged)
        set_caps(&b, process, spec_caps_bounding());
    set(&b, process, "terminal", json_boolean(x->terminal));
    json_object_del(process, "consoleSize");
    *ret = b.failed ? NULL : json_dumps(process, JSON_COMPACT);
    if (!*ret)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "write the process: a string is no UTF-8 text: invalid argument");
    return 0;
}

void spec_summary_done(struct spec_summary *s)
{
    strv_free(s->args);
    strv_free(s->env);
    free(s->cwd);
    *s = (struct spec_summary){};
}

int spec_summarise(const void *spec, size_t n, struct spec_summary *ret, struct err *e)
{
    _cleanup_(spec_summary_done) struct spec_summary s = {};
    _json_ json_t *root = NULL;
    json_t *process = NULL, *user = NULL;
    int64_t uid = 0, gid = 0;
    int r = document_parse(spec, n, SPEC_MAX, "runtime specification", &root, e);

    if (r == 0)
        r = document_object(root, "process", &process, e);
    if (r == 0 && process)
        r = document_object(process, "user", &user, e);
    if (r == 0 && process && (r = document_strv(process, "args", 100000, &s.args, e)) == 0 &&
        (r = document_strv(process, "env", 100000, &s.env, e)) == 0 &&
        (r = document_bool(process, "terminal", &s.terminal, e)) == 0)
        r = document_string(process, "cwd", &s.cwd, e);
    if (r == 0 && user && (r = document_int(user, "uid", &uid, e)) == 0)
        r = document_int(user, "gid", &gid, e);
    if (r < 0)
        return r;
    s.uid = (uint32_t)uid;
    s.gid = (uint32_t)gid;
    *ret = s;
    s = (struct spec_summary){};
    return 0;
}

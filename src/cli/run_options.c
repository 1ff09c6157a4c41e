/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run_options.h"

#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/vfs.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/str.h"
#include "cli/env_file.h"
#include "cli/volume.h"

#define MEMORY_MIN (4u << 20)
#define CPU_PERIOD_US 100000
#define CGROUP2_MAGIC 0x63677270 /* linux/magic.h */

#define OPTION(name) offsetof(struct run_options, name)
static const struct flag flags[] = {
    {"detach", 'd', FLAG_BOOL, OPTION(detach), NULL, "run in the background, print the name"},
    {"interactive", 'i', FLAG_BOOL, OPTION(interactive), NULL, "pass standard input on"},
    {"tty", 't', FLAG_BOOL, OPTION(terminal), NULL, "give it a terminal"},
    {"rm", 0, FLAG_BOOL, OPTION(remove), NULL, "remove the container when it has ended"},
    {"name", 0, FLAG_STRING, OPTION(name), "NAME", "name of the container (default: a random one)"},
    {"env", 'e', FLAG_LIST, OPTION(env), "NAME=VALUE",
     "set a variable; NAME alone takes it from here"},
    {"env-file", 0, FLAG_LIST, OPTION(env_files), "FILE", "read variables from a file"},
    {"workdir", 'w', FLAG_STRING, OPTION(cwd), "DIR", "working directory"},
    {"user", 'u', FLAG_STRING, OPTION(user), "USER[:GROUP]", "names or numbers"},
    {"volume", 'v', FLAG_LIST, OPTION(volumes), "SRC:DST[:ro]", "mount a path of the host"},
    {"mount", 0, FLAG_LIST, OPTION(mounts), "FIELDS", "type=bind|tmpfs,source=,destination=,..."},
    {"entrypoint", 0, FLAG_STRING, OPTION(entrypoint), "PROGRAM", "replaces the image's"},
    {"memory", 'm', FLAG_STRING, OPTION(memory), "SIZE", "limit: 64m, 2g"},
    {"cpus", 0, FLAG_STRING, OPTION(cpus), "NUMBER", "limit: 0.5, 2"},
    {"pids-limit", 0, FLAG_STRING, OPTION(pids_limit), "NUMBER", "limit of processes"},
    {"read-only", 0, FLAG_BOOL, OPTION(read_only), NULL, "make the root filesystem read-only"},
    {"cap-add", 0, FLAG_LIST, OPTION(cap_add), "CAP", "add a capability, or ALL"},
    {"cap-drop", 0, FLAG_LIST, OPTION(cap_drop), "CAP", "drop a capability, or ALL"},
    {"privileged", 0, FLAG_BOOL, OPTION(privileged), NULL, "all capabilities and devices"},
    {"net", 0, FLAG_STRING, OPTION(network), "host|none", "network (default none)"},
    {"network", 0, FLAG_STRING, OPTION(network), "host|none", "the same"},
    {"hostname", 0, FLAG_STRING, OPTION(hostname), "NAME", "host name (default: from the name)"},
    {"label", 'l', FLAG_LIST, OPTION(labels), "KEY=VALUE", "label of the container"},
    {"runtime", 0, FLAG_STRING, OPTION(runtime), "RUNTIME", "crun, runc, a path, or a shim's name"},
    {"stop-signal", 0, FLAG_STRING, OPTION(stop_signal), "SIGNAL", "what \"wherry stop\" sends"},
    {"snapshotter", 0, FLAG_STRING, OPTION(snapshotter), "NAME",
     "default " IMAGE_DEFAULT_SNAPSHOTTER},
};
const struct flag_table run_flags = FLAGS(flags);

void run_plan_done(struct run_plan *p)
{
    strv_free(p->env);
    strv_free(p->args);
    strv_free(p->merged_env);
    free(p->cwd);
    mount_list_done(&p->mounts);
    strmap_done(&p->labels);
    spec_devices_free(p->devices, p->n_devices);
    *p = (struct run_plan){};
}

int run_parse_cpus(const char *s, int64_t *ret_quota_us, uint64_t *ret_period_us, struct err *e)
{
    uint64_t whole = 0, scale = CPU_PERIOD_US, quota;
    const char *at = s;
    bool digits = false;

    for (; *at >= '0' && *at <= '9' && whole < 1000000; at++, digits = true)
        whole = whole * 10 + (uint64_t)(*at - '0');
    quota = whole * CPU_PERIOD_US;
    if (*at == '.') {
        for (at++; *at >= '0' && *at <= '9'; at++, digits = true) {
            scale /= 10;
            quota += scale * (uint64_t)(*at - '0');
        }
    }
    if (*at || !digits)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "--cpus: \"%s\" is no number of processors; write 0.5, 2 and so on", s);
    if (quota < CPU_PERIOD_US / 100)
        return err_set(e, ERR_INVALID_ARGUMENT, "--cpus: %s is too little; at least 0.01", s);
    *ret_quota_us = (int64_t)quota;
    *ret_period_us = CPU_PERIOD_US;
    return 0;
}

int run_parse_signal(const char *s, int *ret, struct err *e)
{
    const char *name = strncasecmp(s, "SIG", 3) == 0 ? s + 3 : s;
    uint32_t number;

    if (str_to_u32(s, &number) == 0 && number > 0 && number <= (uint32_t)SIGRTMAX) {
        *ret = (int)number;
        return 0;
    }
    for (int sig = 1; sig < NSIG; sig++) {
        const char *known = sigabbrev_np(sig);
        if (known && strcasecmp(known, name) == 0) {
            *ret = sig;
            return 0;
        }
    }
    if (strncasecmp(name, "RTMIN+", 6) == 0 && str_to_u32(name + 6, &number) == 0 && number <= 30) {
        *ret = SIGRTMIN + (int)number;
        return 0;
    }
    return err_set(e, ERR_INVALID_ARGUMENT,
                   "\"%s\" is no signal; write TERM, SIGTERM, 15 and so on", s);
}

static int plan_limits(const struct run_options *o, struct spec *spec, struct err *e)
{
    int64_t pids;

    if (o->memory) {
        if (str_to_size(o->memory, &spec->memory_bytes) < 0)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "--memory: \"%s\" is no size; write 64m, 2g and so on", o->memory);
        if (spec->memory_bytes < MEMORY_MIN || spec->memory_bytes > INT64_MAX)
            return err_set(e, ERR_INVALID_ARGUMENT, "--memory: %s is out of range; at least 4m",
                           o->memory);
    }
    if (o->pids_limit) {
        if (str_to_i64(o->pids_limit, &pids) < 0 || pids == 0 || pids < -1)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "--pids-limit: \"%s\" is no number of processes; -1 means no limit",
                           o->pids_limit);
        spec->pids_limit = pids;
    }
    if (o->cpus)
        return run_parse_cpus(o->cpus, &spec->cpu_quota_us, &spec->cpu_period_us, e);
    return 0;
}

static int plan_caps(const struct run_options *o, struct spec *spec, struct err *e)
{
    uint64_t mask = 0;
    int r;

    spec->caps = o->privileged ? spec_caps_bounding() : SPEC_CAPS_DEFAULT;
    /* "--cap-drop ALL --cap-add X" means X alone, so ALL comes first. */
    for (char **c = o->cap_drop; c && *c; c++) {
        if (strcasecmp(*c, "all") == 0)
            spec->caps = 0;
    }
    for (char **c = o->cap_add; c && *c; c++) {
        r = spec_cap_parse(*c, &mask, e);
        if (r < 0)
            return err_wrap(e, "--cap-add");
        spec->caps |= mask;
    }
    for (char **c = o->cap_drop; c && *c; c++) {
        r = spec_cap_parse(*c, &mask, e);
        if (r < 0)
            return err_wrap(e, "--cap-drop");
        if (strcasecmp(*c, "all") != 0)
            spec->caps &= ~mask;
    }
    return 0;
}

static int plan_labels(const struct run_options *o, struct run_plan *p, struct err *e)
{
    for (char **l = o->labels; l && *l; l++) {
        char *equals = strchr(*l, '=');
        _free_ char *key = equals ? strndup(*l, (size_t)(equals - *l)) : strdup(*l);
        int r;

        if (!key)
            return err_oom(e);
        if (!*key)
            return err_set(e, ERR_INVALID_ARGUMENT, "--label %s: the label has no name", *l);
        r = label_validate(key, equals ? equals + 1 : "", e);
        if (r < 0)
            return err_wrap(e, "--label");
        if (strmap_set(&p->labels, key, equals ? equals + 1 : "") < 0)
            return err_oom(e);
    }
    return 0;
}

static int plan_lists(const struct run_options *o, struct run_plan *p, struct err *e)
{
    int r = 0;

    for (char **f = o->env_files; f && *f && r == 0; f++)
        r = env_add_file(&p->env, *f, e);
    for (char **v = o->env; v && *v && r == 0; v++)
        r = env_add(&p->env, *v, e);
    for (char **v = o->volumes; v && *v && r == 0; v++)
        r = volume_parse(*v, &p->mounts, e);
    for (char **m = o->mounts; m && *m && r == 0; m++)
        r = volume_parse_mount(*m, &p->mounts, e);
    if (r == 0)
        r = plan_labels(o, p, e);
    if (r == 0 && o->privileged)
        r = spec_host_devices(&p->devices, &p->n_devices, e);
    return r;
}

static int plan_name(const struct run_options *o, struct run_plan *p, struct err *e)
{
    uint8_t random[6];

    if (o->name) {
        int r = identifier_validate(o->name, e);
        if (r < 0)
            return err_wrap(e, "--name");
        snprintf(p->id, sizeof(p->id), "%s", o->name);
        return 0;
    }
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(e, -errno, "make a random name");
    str_hex(random, sizeof(random), p->id);
    return 0;
}

static int plan_network(const struct run_options *o, struct run_plan *p, struct err *e)
{
    const char *name = o->hostname ? o->hostname : p->id;

    if (o->network && str_eq(o->network, "host"))
        p->spec.network = SPEC_NETWORK_HOST;
    else if (o->network && !str_eq(o->network, "none"))
        return err_set(
            e, ERR_INVALID_ARGUMENT,
            "--net: there is no network \"%s\"; there are host (the host's own) and none "
            "(nothing but the loopback device)",
            o->network);
    if (o->hostname &&
        (strlen(o->hostname) > 64 || strpbrk(o->hostname, "\n\r\t /") || !*o->hostname))
        return err_set(e, ERR_INVALID_ARGUMENT, "--hostname: \"%s\" is no host name", o->hostname);
    if (!o->hostname && gethostname(p->hostname, sizeof(p->hostname)) == 0 &&
        p->spec.network == SPEC_NETWORK_HOST)
        name = p->hostname;
    if (name != p->hostname)
        snprintf(p->hostname, sizeof(p->hostname), "%.64s", name);
    return 0;
}

int run_plan_make(const struct run_options *o, const char *namespace_, struct run_plan *ret,
                  struct err *e)
{
    struct run_plan *p = ret;
    struct statfs fs;
    int r;

    *p = (struct run_plan){};
    if (o->detach && o->remove)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "--rm needs somebody who waits for the end, so it does not go with -d; use "
                       "\"wherry rm\" afterwards");
    r = plan_name(o, p, e);
    if (r == 0)
        r = plan_limits(o, &p->spec, e);
    if (r == 0)
        r = plan_caps(o, &p->spec, e);
    if (r == 0)
        r = plan_network(o, p, e);
    if (r == 0)
        r = plan_lists(o, p, e);
    if (r < 0)
        return r;
    p->spec.id = p->id;
    p->spec.namespace_ = namespace_;
    p->spec.terminal = o->terminal;
    p->spec.hostname = p->hostname;
    p->spec.read_only = o->read_only;
    p->spec.privileged = o->privileged;
    p->spec.no_new_privileges = true;
    p->spec.cgroup_namespace =
        statfs("/sys/fs/cgroup", &fs) == 0 && (uint64_t)fs.f_type == CGROUP2_MAGIC;
    p->spec.mounts = &p->mounts;
    p->spec.devices = p->devices;
    p->spec.n_devices = p->n_devices;
    return 0;
}

static int push_all(char ***to, char *const *from, struct err *e)
{
    for (; from && *from; from++) {
        if (strv_push(to, *from) < 0)
            return err_oom(e);
    }
    return 0;
}

static int merge_env(struct run_plan *p, const struct run_options *o,
                     const struct image_config *config, struct err *e)
{
    _free_ char *hostname = str_printf("HOSTNAME=%s", p->hostname);
    char *const *image = config->env;
    int r = 0;

    if (!hostname)
        return err_oom(e);
    if (!image || !*image)
        r = env_add(&p->merged_env, SPEC_DEFAULT_PATH, e);
    for (; image && *image && r == 0; image++) {
        if (strchr(*image, '=') && **image != '=')
            r = env_add(&p->merged_env, *image, e);
    }
    if (r == 0)
        r = env_add(&p->merged_env, hostname, e);
    if (r == 0 && o->terminal)
        r = env_add(&p->merged_env, "TERM=xterm", e);
    for (char **v = p->env; v && *v && r == 0; v++)
        r = env_add(&p->merged_env, *v, e);
    return r;
}

int run_plan_use_image(struct run_plan *p, const struct run_options *o,
                       const struct image_config *config, int n_args, char **args, struct err *e)
{
    const char *cwd = o->cwd ? o->cwd : config->working_dir;
    int r = 0;

    if (o->entrypoint) {
        if (*o->entrypoint && strv_push(&p->args, o->entrypoint) < 0)
            return err_oom(e);
    } else {
        r = push_all(&p->args, config->entrypoint, e);
    }
    if (r == 0 && n_args > 0)
        r = push_all(&p->args, args, e);
    else if (r == 0 && !o->entrypoint)
        r = push_all(&p->args, config->cmd, e);
    if (r < 0)
        return r;
    if (strv_len(p->args) == 0)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "the image does not say what to run; write a command behind its name");
    if (!str_empty(cwd) && cwd[0] != '/')
        return err_set(e, ERR_INVALID_ARGUMENT, "the working directory \"%s\" is no absolute path",
                       cwd);
    p->cwd = fs_clean_path(str_empty(cwd) ? "/" : cwd);
    if (!p->cwd)
        return err_oom(e);
    r = merge_env(p, o, config, e);
    p->spec.args = p->args;
    p->spec.env = p->merged_env;
    p->spec.cwd = p->cwd;
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <malloc.h>
#include <stdio.h>

#include "base/log.h"
#include "base/str.h"
#include "daemon/args.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/publish.h"

/* Freed memory goes back early, and threads share two arenas: the daemon idles most of its life. */
static void tune_memory(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_TRIM_THRESHOLD, 64 * 1024);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
}

static int override(char **field, const char *value, struct err *e)
{
    if (!value)
        return 0;
    char *copy = strdup(value);
    if (!copy)
        return err_oom(e);
    free(*field);
    *field = copy;
    return 0;
}

/* File, then command line. */
static int load_config(const struct daemon_args *args, struct config *c, struct err *e)
{
    int r = config_load(c, args->config ? args->config : CONFIG_DEFAULT_PATH, e);
    if (r < 0 && !args->config && e->code == ERR_NOT_FOUND) {
        err_clear(e);
        r = 0;
    }
    if (r >= 0)
        r = override(&c->root, args->root, e);
    if (r >= 0)
        r = override(&c->state, args->state, e);
    if (r >= 0)
        r = override(&c->grpc_address, args->address, e);
    if (r >= 0)
        r = override(&c->log_level, args->log_level, e);
    return r < 0 ? r : config_finish(c, e);
}

static int serve(const struct config *c, struct err *e)
{
    enum log_level level = LOG_INFO;

    if (geteuid() != 0)
        return err_set(e, ERR_PERMISSION_DENIED,
                       "wherryd manages mounts and cgroups: run it as root");
    if (log_level_parse(c->log_level, &level) < 0)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "unknown log level %s: use trace, debug, info, warn, error or fatal",
                       c->log_level);
    log_set_level(level);
    for (char **w = c->warnings; w && *w; w++)
        log_warn("%s", *w);
    return daemon_run(c, e);
}

static int run(const struct daemon_args *args, struct config *c, struct err *e)
{
    int r = config_init(c, e);
    if (r < 0)
        return r;
    if (args->command == COMMAND_CONFIG_DEFAULT) {
        r = config_finish(c, e);
        return r < 0 ? r : config_write(c, STDOUT_FILENO);
    }
    r = load_config(args, c, e);
    if (r < 0)
        return r;
    if (args->command == COMMAND_CONFIG_DUMP)
        return config_write(c, STDOUT_FILENO);
    if (args->command == COMMAND_PUBLISH)
        return publish_run(c->grpc_address, args->topic, args->namespace_, e);
    return serve(c, e);
}

int main(int argc, char **argv)
{
    struct daemon_args args;
    struct config config = {0};
    struct err e = ERR_INIT;

    tune_memory();
    int r = daemon_args_parse(argc, argv, &args, &e);
    if (r >= 0 && args.command == COMMAND_HELP) {
        fputs(daemon_usage, stdout);
        return 0;
    }
    if (r >= 0 && args.command == COMMAND_VERSION) {
        puts("wherryd " WHERRY_VERSION);
        return 0;
    }
    if (r >= 0)
        r = run(&args, &config, &e);
    config_done(&config);
    if (r >= 0)
        return 0;
    fprintf(stderr, "wherryd: %s\n", e.code != ERR_OK ? e.msg : err_strerror(r));
    return 1;
}

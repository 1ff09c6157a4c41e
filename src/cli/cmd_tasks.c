/* SPDX-License-Identifier: Apache-2.0 */
/* stop, kill, pause, unpause, rm: each takes any number of containers and goes on after a failure.
 */
#include <stdio.h>

#include "base/str.h"
#include "cli/command.h"
#include "cli/container.h"
#include "cli/process.h"
#include "cli/run_options.h"

#define STOP_TIMEOUT_S 10
#define STOP_TIMEOUT_MAX_S 86400

struct stop_options {
    const char *timeout;
};
static const struct flag stop_flags[] = {
    {"time", 't', FLAG_STRING, offsetof(struct stop_options, timeout), "SECONDS",
     "until SIGKILL (default 10)"},
};
static const struct flag_table stop_table = FLAGS(stop_flags);

struct kill_options {
    const char *signal;
};
static const struct flag kill_flags[] = {
    {"signal", 's', FLAG_STRING, offsetof(struct kill_options, signal), "SIGNAL",
     "which one (default KILL)"},
};
static const struct flag_table kill_table = FLAGS(kill_flags);

struct rm_options {
    bool force;
};
static const struct flag rm_flags[] = {
    {"force", 'f', FLAG_BOOL, offsetof(struct rm_options, force), NULL, "also what still runs"},
};
static const struct flag_table rm_table = FLAGS(rm_flags);

/* Does it to each and prints its name; tells every failure, the exit code is 1 then. */
static int for_each(struct cli *cli, int argc, char **argv, const void *options,
                    int (*one)(struct cli *cli, const char *id, const void *options, struct err *e))
{
    int code = 0;

    for (int i = 0; i < argc && !cli->interrupted; i++) {
        struct err e = ERR_INIT;

        if (one(cli, argv[i], options, &e) < 0)
            code = command_fail(&e, CLI_EXIT_ERROR);
        else
            printf("%s\n", argv[i]);
    }
    return code;
}

struct stop_plan {
    int timeout_ms;
};

static int stop_one(struct cli *cli, const char *id, const void *options, struct err *e)
{
    const struct stop_plan *plan = options;
    _reply_ Pb__Containers__GetContainerResponse *c = NULL;
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    const char *name;
    int sig = SIGTERM, r;

    r = container_get(cli, id, &c, e);
    if (r == 0)
        r = container_task(cli, id, &task, e);
    if (r <= 0)
        return r;
    name = container_label(c->container, LABEL_STOP_SIGNAL);
    if (!str_empty(name)) {
        struct err ignored = ERR_INIT;
        run_parse_signal(name, &sig, &ignored);
    }
    r = task->process->status == PB__V1TYPES__STATUS__STOPPED ? 1 : 0;
    if (r == 0 && plan->timeout_ms > 0) {
        r = process_kill(cli, id, "", sig, false, e);
        if (r == 0)
            r = container_wait(cli, id, plan->timeout_ms, NULL, e);
    }
    if (r == 0) {
        r = process_kill(cli, id, "", SIGKILL, false, e);
        if (r == 0)
            r = container_wait(cli, id, 0, NULL, e);
    }
    if (r < 0 && e->code != ERR_NOT_FOUND)
        return r;
    container_io_remove_left(task->process->stdout);
    return container_delete_task(cli, id, true, e);
}

static int cmd_stop(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct stop_options *o = options;
    struct stop_plan plan = {.timeout_ms = STOP_TIMEOUT_S * 1000};
    uint32_t seconds;

    if (o->timeout) {
        if (str_to_u32(o->timeout, &seconds) < 0 || seconds > STOP_TIMEOUT_MAX_S)
            return err_set(e, ERR_INVALID_ARGUMENT, "-t: \"%s\" is no number of seconds",
                           o->timeout);
        plan.timeout_ms = (int)seconds * 1000;
    }
    return for_each(cli, argc, argv, &plan, stop_one);
}

static int kill_one(struct cli *cli, const char *id, const void *options, struct err *e)
{
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    int r = container_running(cli, id, &task, e);

    return r < 0 ? r : process_kill(cli, id, "", *(const int *)options, false, e);
}

static int cmd_kill(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct kill_options *o = options;
    int sig = SIGKILL, r = o->signal ? run_parse_signal(o->signal, &sig, e) : 0;

    return r < 0 ? r : for_each(cli, argc, argv, &sig, kill_one);
}

static int pause_one(struct cli *cli, const char *id, const void *options, struct err *e)
{
    Pb__Tasks__PauseTaskRequest request = PB__TASKS__PAUSE_TASK_REQUEST__INIT;
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    int r = container_running(cli, id, &task, e);

    request.container_id = (char *)id;
    return r < 0 ? r : RPC_EMPTY(cli, "tasks.v1.Tasks/Pause", &request, e);
}

static int cmd_pause(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    return for_each(cli, argc, argv, NULL, pause_one);
}

static int unpause_one(struct cli *cli, const char *id, const void *options, struct err *e)
{
    Pb__Tasks__ResumeTaskRequest request = PB__TASKS__RESUME_TASK_REQUEST__INIT;
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    int r = container_running(cli, id, &task, e);

    if (r < 0)
        return r;
    if (task->process->status != PB__V1TYPES__STATUS__PAUSED)
        return err_set(e, ERR_FAILED_PRECONDITION, "container %s is not paused", id);
    request.container_id = (char *)id;
    return RPC_EMPTY(cli, "tasks.v1.Tasks/Resume", &request, e);
}

static int cmd_unpause(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    return for_each(cli, argc, argv, NULL, unpause_one);
}

static int rm_one(struct cli *cli, const char *id, const void *options, struct err *e)
{
    const struct rm_options *o = options;
    _reply_ Pb__Containers__GetContainerResponse *c = NULL;
    int r = container_get(cli, id, &c, e);

    return r < 0 ? r : container_remove(cli, c->container, o->force, e);
}

static int cmd_rm(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    return for_each(cli, argc, argv, options, rm_one);
}

const struct command commands_tasks[] = {
    {
        .name = "stop",
        .usage = "[-t SECONDS] CONTAINER...",
        .summary = "ask containers to end, and kill those that do not",
        .flags = &stop_table,
        .options_size = sizeof(struct stop_options),
        .min_args = 1,
        .max_args = -1,
        .run = cmd_stop,
    },
    {
        .name = "kill",
        .usage = "[-s SIGNAL] CONTAINER...",
        .summary = "send a signal to containers",
        .flags = &kill_table,
        .options_size = sizeof(struct kill_options),
        .min_args = 1,
        .max_args = -1,
        .run = cmd_kill,
    },
    {
        .name = "pause",
        .usage = "CONTAINER...",
        .summary = "freeze all processes of containers",
        .min_args = 1,
        .max_args = -1,
        .run = cmd_pause,
    },
    {
        .name = "unpause",
        .usage = "CONTAINER...",
        .summary = "let paused containers go on",
        .min_args = 1,
        .max_args = -1,
        .run = cmd_unpause,
    },
    {
        .name = "rm",
        .usage = "[-f] CONTAINER...",
        .summary = "remove containers, their filesystems and logs",
        .flags = &rm_table,
        .options_size = sizeof(struct rm_options),
        .min_args = 1,
        .max_args = -1,
        .run = cmd_rm,
    },
    {},
};

/* SPDX-License-Identifier: Apache-2.0 */
/* `wherry exec` and `wherry attach`. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>

#include "base/fs.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/container.h"
#include "cli/env_file.h"
#include "cli/process.h"
#include "oci/spec.h"

struct exec_options {
    bool detach, interactive, terminal, privileged;
    const char *cwd, *user;
    char **env, **env_files;
};

#define OPTION(name) offsetof(struct exec_options, name)
static const struct flag exec_flags[] = {
    {"detach", 'd', FLAG_BOOL, OPTION(detach), NULL,
     "do not wait for its end; its output is dropped"},
    {"interactive", 'i', FLAG_BOOL, OPTION(interactive), NULL, "pass standard input on"},
    {"tty", 't', FLAG_BOOL, OPTION(terminal), NULL, "give it a terminal"},
    {"env", 'e', FLAG_LIST, OPTION(env), "NAME=VALUE",
     "set a variable; NAME alone takes it from here"},
    {"env-file", 0, FLAG_LIST, OPTION(env_files), "FILE", "read variables from a file"},
    {"workdir", 'w', FLAG_STRING, OPTION(cwd), "DIR", "working directory"},
    {"user", 'u', FLAG_STRING, OPTION(user), "USER[:GROUP]", "names or numbers"},
    {"privileged", 0, FLAG_BOOL, OPTION(privileged), NULL, "all capabilities"},
};
static const struct flag_table exec_table = FLAGS(exec_flags);

/* Names are looked up in the running container's own files. */
static int resolve_user(struct cli *cli, const char *id, const char *user, struct user *ret,
                        struct err *e)
{
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    _cleanup_(layers_done) struct layers layers = {};
    char path[32];
    int fd, r;

    if (!user[strspn(user, "0123456789:")] && strchr(user, ':'))
        return user_resolve(user, NULL, ret, e);
    r = container_running(cli, id, &task, e);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "/proc/%u/root", task->process->pid);
    fd = neg_errno(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0)
        return err_errno(e, fd, "look into container %s for user \"%s\"", id, user);
    r = layers_from_dir(fd, &layers);
    if (r < 0) {
        close(fd);
        return err_oom(e);
    }
    return user_resolve(user, &layers, ret, e);
}

static int make_process(struct cli *cli, const struct exec_options *o, const char *id, char **args,
                        char **ret, struct err *e)
{
    _reply_ Pb__Containers__GetContainerResponse *c = NULL;
    _cleanup_(strv_freep) char **env = NULL;
    _cleanup_(user_done) struct user user = {};
    struct spec_exec x = {.args = args, .terminal = o->terminal, .privileged = o->privileged};
    int r = container_get(cli, id, &c, e);

    for (char **f = o->env_files; f && *f && r == 0; f++)
        r = env_add_file(&env, *f, e);
    for (char **v = o->env; v && *v && r == 0; v++)
        r = env_add(&env, *v, e);
    if (r == 0 && o->terminal && !env_get(env, "TERM"))
        r = env_add(&env, "TERM=xterm", e);
    if (r == 0 && o->cwd && o->cwd[0] != '/')
        r = err_set(e, ERR_INVALID_ARGUMENT, "the working directory \"%s\" is no absolute path",
                    o->cwd);
    if (r == 0 && !str_empty(o->user)) {
        r = resolve_user(cli, id, o->user, &user, e);
        x.user = &user;
    }
    if (r < 0)
        return r;
    if (!c->container->spec)
        return err_set(e, ERR_FAILED_PRECONDITION, "container %s has no specification", id);
    x.env = env;
    x.cwd = o->cwd;
    return spec_exec_format(c->container->spec->value.data, c->container->spec->value.len, &x, ret,
                            e);
}

static int add_exec(struct cli *cli, struct process *p, const char *json, struct err *e)
{
    Pb__Tasks__ExecProcessRequest request = PB__TASKS__EXEC_PROCESS_REQUEST__INIT;
    Google__Protobuf__Any spec = GOOGLE__PROTOBUF__ANY__INIT;
    int r;

    spec.type_url = (char *)SPEC_PROCESS_TYPE_URL;
    spec.value.data = (uint8_t *)json;
    spec.value.len = strlen(json);
    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    request.stdin = p->io.paths[0];
    request.stdout = p->io.paths[1];
    request.stderr = p->io.paths[2];
    request.terminal = p->io.terminal;
    request.spec = &spec;
    r = RPC_EMPTY(cli, "tasks.v1.Tasks/Exec", &request, e);
    if (r < 0 && e->code == ERR_NOT_FOUND)
        return err_set(e, ERR_FAILED_PRECONDITION, "container %s is not running", p->container_id);
    return r;
}

static void delete_exec(struct cli *cli, struct process *p)
{
    Pb__Tasks__DeleteProcessRequest request = PB__TASKS__DELETE_PROCESS_REQUEST__INIT;
    struct err ignored = ERR_INIT;

    cli->finishing = true;
    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    RPC(cli, "tasks.v1.Tasks/DeleteProcess", &request, pb__tasks__delete_response, NULL, &ignored);
}

static int cmd_exec(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    const struct exec_options *o = options;
    _cleanup_(process_done) struct process p;
    _free_ char *json = NULL;
    uint8_t random[8];
    char exec_id[2 * sizeof(random) + 1];
    uint32_t status = 0;
    bool streams = !o->detach;
    int r;

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(e, -errno, "make a random name");
    str_hex(random, sizeof(random), exec_id);
    process_init(&p, cli, argv[0], exec_id);
    p.interactive = o->interactive && streams;
    r = streams ? process_check_terminal(o->terminal, o->interactive, e) : 0;
    if (r == 0)
        r = cli_catch_signals(cli, e);
    if (r == 0)
        r = make_process(cli, o, argv[0], argv + 1, &json, e);
    if (r == 0)
        r = container_io_make(&p.io, exec_id, p.interactive, streams, o->terminal && streams, e);
    if (r == 0)
        r = add_exec(cli, &p, json, e);
    if (r < 0)
        return r;
    r = process_start(&p, e);
    if (r < 0) {
        int code = process_start_failure(e);
        terminal_restore(&p.terminal);
        delete_exec(cli, &p);
        return command_fail(e, code);
    }
    if (o->detach)
        return 0;
    r = process_wait(&p, &status, e);
    if (r < 0)
        return r;
    if (!p.detached)
        delete_exec(cli, &p);
    return (int)status;
}

static int cmd_attach(struct cli *cli, const void *options, int argc, char **argv, struct err *e)
{
    _cleanup_(process_done) struct process p;
    _reply_ Pb__Tasks__GetResponse *task = NULL;
    const Pb__V1types__Process *info;
    uint32_t status = 0;
    int r;

    process_init(&p, cli, argv[0], "");
    p.io.keep = true;
    r = cli_catch_signals(cli, e);
    if (r == 0)
        r = container_running(cli, argv[0], &task, e);
    if (r < 0)
        return r;
    info = task->process;
    p.interactive = !str_empty(info->stdin);
    r = process_check_terminal(info->terminal, p.interactive, e);
    if (r == 0)
        r = container_io_attach(&p.io, info->stdin, info->stdout, info->stderr, info->terminal, e);
    if (r == 0)
        r = process_attach(&p, e);
    if (r == 0)
        r = process_wait(&p, &status, e);
    return r < 0 ? r : (int)status;
}

const struct command commands_exec[] = {
    {
        .name = "exec",
        .usage = "[FLAGS] CONTAINER COMMAND [ARGUMENT...]",
        .summary = "run one more program in a running container",
        .detail =
            "What stands behind CONTAINER belongs to the program. Exit codes as of \"wherry run\".",
        .flags = &exec_table,
        .options_size = sizeof(struct exec_options),
        .options_first = true,
        .own_failures_are_125 = true,
        .min_args = 2,
        .max_args = -1,
        .run = cmd_exec,
    },
    {
        .name = "attach",
        .usage = "CONTAINER",
        .summary = "sit in front of a container that runs with -dt, or that was detached from",
        .own_failures_are_125 = true,
        .min_args = 1,
        .max_args = 1,
        .run = cmd_attach,
    },
    {},
};

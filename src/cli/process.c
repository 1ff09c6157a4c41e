/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/process.h"

#include <time.h>

#include "base/clock.h"
#include "base/str.h"
#include "services.tasks.v1.pb-c.h"

#define OUTPUT_TIMEOUT_MS 2000
#define RECONNECT_TIMEOUT_MS 60000
#define RECONNECT_PAUSE_MS 100
#define PIPE_TIMEOUT_MS 500

/* Notes: calls whose answers change nothing. */
static void on_note_message(struct grpc_client_call *call, void *userdata, ProtobufCMessage *m)
{
    pb_free(m);
}

static void on_note_end(struct grpc_client_call *call, void *userdata, const struct err *e)
{
}

static void send_note(struct process *p, const char *method, const ProtobufCMessage *request)
{
    struct grpc_client_call *call = NULL;
    struct err ignored = ERR_INIT;

    if (p->cli->client)
        grpc_client_start(p->cli->client, method, request, &google__protobuf__empty__descriptor, 0,
                          on_note_message, on_note_end, NULL, &call, &ignored);
}

static void resize(struct process *p)
{
    Pb__Tasks__ResizePtyRequest request = PB__TASKS__RESIZE_PTY_REQUEST__INIT;

    if (!p->io.terminal || !terminal_size(&request.width, &request.height))
        return;
    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    send_note(p, "/containerd.services.tasks.v1.Tasks/ResizePty", &request.base);
}

static void send_signal(struct process *p, int sig)
{
    Pb__Tasks__KillRequest request = PB__TASKS__KILL_REQUEST__INIT;

    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    request.signal = (uint32_t)sig;
    send_note(p, "/containerd.services.tasks.v1.Tasks/Kill", &request.base);
}

/* A first process that handles no signal ignores most of them: who insists gets SIGKILL. */
static void on_signal(struct cli *cli, int sig)
{
    struct process *p = cli->on_signal_userdata;

    if (sig == SIGWINCH) {
        resize(p);
        return;
    }
    if ((sig == SIGINT || sig == SIGTERM) && ++p->interrupts >= PROCESS_INTERRUPTS_TO_KILL)
        sig = SIGKILL;
    send_signal(p, sig);
}

static void on_stdin_end(struct container_io *io)
{
    struct process *p = container_of(io, struct process, io);
    Pb__Tasks__CloseIORequest request = PB__TASKS__CLOSE_IOREQUEST__INIT;

    /* The end of a terminal's input is typed, not closed. */
    if (io->terminal)
        return;
    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    request.stdin = true;
    send_note(p, "/containerd.services.tasks.v1.Tasks/CloseIO", &request.base);
}

/*
 * The reader of our output has gone, as with `wherry run ... | head`. A program of the host would
 * be ended by SIGPIPE at its next write; a container's first process ignores that signal unless it
 * handles it, so the ones that go on writing to nobody are ended with SIGKILL.
 */
static void on_pipe_timeout(struct event_timer *timer)
{
    struct process *p = container_of(timer, struct process, pipe_timer);

    if (container_io_discarded(&p->io) > p->pipe_discarded)
        send_signal(p, SIGKILL);
    else
        event_timer_arm(&p->cli->loop, timer, PIPE_TIMEOUT_MS, on_pipe_timeout);
}

static void on_output_gone(struct container_io *io)
{
    struct process *p = container_of(io, struct process, io);

    send_signal(p, SIGPIPE);
    p->pipe_discarded = container_io_discarded(io);
    event_timer_arm(&p->cli->loop, &p->pipe_timer, PIPE_TIMEOUT_MS, on_pipe_timeout);
}

static void on_detach(struct container_io *io)
{
    container_of(io, struct process, io)->detached = true;
}

void process_init(struct process *p, struct cli *cli, const char *container_id, const char *exec_id)
{
    *p = (struct process){
        .cli = cli,
        .container_id = container_id,
        .exec_id = exec_id,
        .terminal = TERMINAL_INIT,
    };
    container_io_init(&p->io);
    p->io.on_stdin_end = on_stdin_end;
    p->io.on_output_gone = on_output_gone;
    p->io.on_detach = on_detach;
}

void process_done(struct process *p)
{
    terminal_restore(&p->terminal);
    event_timer_disarm(&p->pipe_timer);
    p->cli->on_signal = NULL;
    rpc_done(&p->wait);
    container_io_done(&p->io);
}

int process_check_terminal(bool terminal, bool interactive, struct err *e)
{
    if (terminal && interactive && !isatty(STDIN_FILENO))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "-t with -i needs a terminal, and standard input is none; leave out -t");
    return 0;
}

static int start_wait(struct process *p, struct err *e)
{
    Pb__Tasks__WaitRequest request = PB__TASKS__WAIT_REQUEST__INIT;

    rpc_done(&p->wait);
    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    return rpc_start(p->cli, &p->wait, "tasks.v1.Tasks/Wait", &request.base,
                     &pb__tasks__wait_response__descriptor, e);
}

/* From here on signals are the container's, those that came before included. */
static int take_over(struct process *p, struct err *e)
{
    int sig = p->cli->interrupted;

    p->started = true;
    p->cli->on_signal = on_signal;
    p->cli->on_signal_userdata = p;
    p->cli->interrupted = 0;
    if (sig)
        send_signal(p, sig);
    if (p->io.terminal && p->interactive && terminal_raw(&p->terminal, STDIN_FILENO) < 0)
        return err_errno(e, -errno, "make the terminal raw");
    return container_io_start(&p->io, &p->cli->loop, e);
}

int process_start(struct process *p, struct err *e)
{
    Pb__Tasks__StartRequest request = PB__TASKS__START_REQUEST__INIT;
    int r;

    if (!*p->exec_id)
        resize(p); /* an exec has no terminal before it is started */
    r = start_wait(p, e);
    if (r < 0)
        return r;
    request.container_id = (char *)p->container_id;
    request.exec_id = (char *)p->exec_id;
    p->cli->finishing = true; /* half a start is worse than a late answer to ctrl-c */
    r = RPC(p->cli, "tasks.v1.Tasks/Start", &request, pb__tasks__start_response, NULL, e);
    p->cli->finishing = false;
    if (r < 0)
        return r;
    r = take_over(p, e);
    if (r == 0 && *p->exec_id)
        resize(p);
    return r;
}

int process_attach(struct process *p, struct err *e)
{
    int r = start_wait(p, e);

    if (r == 0)
        r = take_over(p, e);
    if (r == 0)
        resize(p);
    return r;
}

/* The daemon went away; containers live on without it, so we wait for the next one. */
static int reconnect(struct process *p, struct err *e)
{
    const struct timespec pause = {.tv_nsec = RECONNECT_PAUSE_MS * 1000000L};
    uint64_t end = clock_monotonic_ms() + RECONNECT_TIMEOUT_MS;
    struct err last = *e;

    rpc_done(&p->wait);
    p->cli->client = grpc_client_free(p->cli->client);
    while (clock_monotonic_ms() < end && p->interrupts < PROCESS_INTERRUPTS_TO_KILL) {
        struct err ignored = ERR_INIT;

        if (cli_connect(p->cli, &ignored) == 0)
            return start_wait(p, e);
        event_loop_turn(&p->cli->loop, 0);
        nanosleep(&pause, NULL);
    }
    return err_set(e, ERR_UNAVAILABLE,
                   "the daemon at %s went away and did not come back (%s); the container may still "
                   "be running",
                   p->cli->address, last.msg);
}

int process_wait(struct process *p, uint32_t *ret_status, struct err *e)
{
    int r = 0;

    for (;;) {
        while (!p->wait.done && !p->detached) {
            r = event_loop_turn(&p->cli->loop, -1);
            if (r < 0)
                return err_errno(e, r, "wait for the container");
        }
        if (p->detached || p->wait.err.code != ERR_UNAVAILABLE)
            break;
        *e = p->wait.err;
        r = reconnect(p, e);
        if (r < 0) {
            p->io.keep = true;
            return r;
        }
    }
    if (p->detached) {
        p->io.keep = true;
        *ret_status = 0;
    } else if (p->wait.err.code != ERR_OK) {
        *e = p->wait.err;
        return ERR_RETURN;
    } else {
        *ret_status = ((Pb__Tasks__WaitResponse *)p->wait.reply)->exit_status;
        container_io_finish(&p->io, &p->cli->loop, OUTPUT_TIMEOUT_MS);
    }
    terminal_restore(&p->terminal);
    event_timer_disarm(&p->pipe_timer);
    p->cli->on_signal = NULL;
    return 0;
}

int process_start_failure(const struct err *e)
{
    static const char *const missing[] = {"executable file not found", "no such file or directory",
                                          "not found in $PATH"};

    if (!strstr(e->msg, "OCI runtime"))
        return CLI_EXIT_WHERRY;
    for (size_t i = 0; i < ARRAY_SIZE(missing); i++) {
        if (strstr(e->msg, missing[i]))
            return CLI_EXIT_NOT_FOUND;
    }
    if (strcasestr(e->msg, "permission denied") || strcasestr(e->msg, "is a directory") ||
        strcasestr(e->msg, "exec format error") || strcasestr(e->msg, "is not executable"))
        return CLI_EXIT_NOT_RUNNABLE;
    return CLI_EXIT_WHERRY;
}

int process_kill(struct cli *cli, const char *container_id, const char *exec_id, int sig, bool all,
                 struct err *e)
{
    Pb__Tasks__KillRequest request = PB__TASKS__KILL_REQUEST__INIT;

    request.container_id = (char *)container_id;
    request.exec_id = (char *)exec_id;
    request.signal = (uint32_t)sig;
    request.all = all;
    return RPC_EMPTY(cli, "tasks.v1.Tasks/Kill", &request, e);
}

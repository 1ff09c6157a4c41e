/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one invocation of `wherry` has: the global flags, a loop and, from the first call on, one
 * connection to the daemon. Commands get a pointer to it.
 */
#pragma once

#include "base/err.h"
#include "base/event.h"
#include "wire/grpc_client.h"

#define CLI_DEFAULT_ADDRESS "/run/wherry/wherry.sock"
#define CLI_DEFAULT_NAMESPACE "default"
#define CLI_CONNECT_TIMEOUT_MS 10000
#define CLI_INTERRUPTS_TO_GIVE_UP 5

/* Exit codes, docker's where it has them. */
enum cli_exit {
    CLI_EXIT_ERROR = 1,
    CLI_EXIT_WHERRY = 125, /* run and exec: our own failure, the program was not started */
    CLI_EXIT_NOT_RUNNABLE = 126,
    CLI_EXIT_NOT_FOUND = 127,
};

struct cli {
    const char *address; /* path of the socket */
    const char *namespace_;
    bool json;
    struct event_loop loop;
    struct grpc_client *client; /* NULL until cli_connect() */

    /* Signals, once a command has asked for them. */
    int signal_fd;
    struct event_fd signal_source;
    /* NULL: SIGINT, SIGTERM and SIGHUP set `interrupted`, and calls fail with ERR_CANCELED. */
    void (*on_signal)(struct cli *cli, int sig);
    void *on_signal_userdata;
    int interrupted; /* the signal, 0: none */
    /* Calls go on in spite of it: making something that is then known, or cleaning up. Who insists
     * (CLI_INTERRUPTS_TO_GIVE_UP) ends that, too. */
    bool finishing;
    unsigned n_interrupts;
};

int cli_init(struct cli *cli, struct err *e);
void cli_done(struct cli *cli);
/* Connects unless that was done. The error says what was tried and how to start the daemon. */
int cli_connect(struct cli *cli, struct err *e);
/* From now on signals come through the loop. Blocks them in this thread. */
/* Whether a call under way is to be given up. */
static inline bool cli_gives_up(const struct cli *cli)
{
    return cli->interrupted && (!cli->finishing || cli->n_interrupts >= CLI_INTERRUPTS_TO_GIVE_UP);
}
int cli_catch_signals(struct cli *cli, struct err *e);

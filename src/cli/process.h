/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process of a container that somebody sits in front of: its streams are ours, signals go to it,
 * its terminal has the size of ours, and its exit code becomes ours. Shared by run, exec and
 * attach.
 *
 *     process_init(); container_io_make(&p.io, ...); Tasks.Create or Tasks.Exec;
 *     process_start(); process_wait(); process_done()
 */
#pragma once

#include "cli/container_io.h"
#include "cli/rpc.h"
#include "cli/terminal.h"

#define PROCESS_INTERRUPTS_TO_KILL 3

struct process {
    struct cli *cli;
    const char *container_id; /* borrowed */
    const char *exec_id;      /* "" for the container's first process */
    struct container_io io;
    struct terminal terminal;
    struct rpc wait;
    bool interactive; /* stdin is copied */
    bool started;
    bool detached;
    unsigned interrupts;
    struct event_timer pipe_timer; /* after a SIGPIPE of ours */
    uint64_t pipe_discarded;
};

void process_init(struct process *p, struct cli *cli, const char *container_id,
                  const char *exec_id);
void process_done(struct process *p);

/* -t and -i together need a terminal of ours. */
int process_check_terminal(bool terminal, bool interactive, struct err *e);

/* Starts it: ResizePty, Wait and Start at once, then the streams. On failure nothing runs. */
int process_start(struct process *p, struct err *e);
/* The same for one that runs already: Wait and the streams. */
int process_attach(struct process *p, struct err *e);
/* Until it has ended, or the user has detached (p->detached; *ret_status is 0). The daemon may go
 * away and come back meanwhile. */
int process_wait(struct process *p, uint32_t *ret_status, struct err *e);

/* The exit code for a program that could not be started, from the daemon's sentence: 126, 127 or
 * 125. */
int process_start_failure(const struct err *e);

int process_kill(struct cli *cli, const char *container_id, const char *exec_id, int sig, bool all,
                 struct err *e);

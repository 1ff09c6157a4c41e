/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process of a container that a client knows: its first one (init) or one added by Exec.
 *
 *     CREATING -> CREATED -> RUNNING <-> PAUSED   (init only; PAUSING while it is asked for)
 *         |          |          |          |
 *         |          +----------+----------+--> STOPPED -> DELETED
 *         +--> DELETED   (create failed)
 *
 * An exec begins as CREATED and has no process until it is started; one whose start failed stays
 * CREATED, with start_failed, until it is deleted.
 *
 * What changes a process is an operation (struct op). Operations on one process wait for each
 * other; kill, and what only looks, does not wait, so that a hanging runtime can be interrupted.
 *
 * The end of a process is told (exit record, event, waiters) only when nothing has to be told
 * before it: not while it is being launched or started, and init's not before those of all execs;
 * nor while a client is still reading what it printed (output_hold.h).
 */
#pragma once

#include "shim/output_hold.h"
#include "shim/runtime_call.h"
#include "shim/shim.h"
#include "shim/stdio.h"

struct container;

enum process_state {
    PROCESS_CREATING,
    PROCESS_CREATED,
    PROCESS_RUNNING,
    PROCESS_PAUSING,
    PROCESS_PAUSED,
    PROCESS_STOPPED,
    PROCESS_DELETED,
};

struct process_exit {
    pid_t pid;
    int status;
    struct timespec at; /* {0, 0}: it never ran */
};

struct process_waiter {
    struct list link;
    void (*fn)(void *userdata, const struct process_exit *exit);
    void *userdata;
};
#define PROCESS_WAITERS_MAX 4096

struct op;
typedef void (*op_fn)(struct op *op);
struct op {
    struct list link;
    struct process *process; /* a reference */
    op_fn begin;
    done_fn done;
    void *userdata;
    bool queued; /* it holds the process until it ends */
    /* Arguments and state of those that need them. */
    int signal;
    bool all;
    bool runtime_called, runtime_done, stdio_begun, stdio_done;
    const char *command;
    struct runtime_call *call; /* the last one; good for the duration of its callback */
    op_fn launched;
    op_fn undone; /* of a launch that failed */
    unsigned tries;
    char *text;      /* of a launch: the pid file */
    char *spec_path; /* of an exec's launch; of a restore: CRIU's work directory */
    struct event_timer timer;
    struct err error;
    struct process_exit *ret_exit; /* of delete: the caller's, filled before done */
};

struct process {
    unsigned refs;
    struct container *container; /* a reference */
    char *exec_id;               /* NULL: init */
    enum process_state state;
    struct child child;
    struct process_exit exit; /* pid from the start on */
    bool has_ended;           /* known to us */
    bool is_launching;        /* from the call of the runtime to the start's event */
    bool start_failed;
    bool terminal;
    char *stdin_path, *stdout_path, *stderr_path;
    char *spec; /* of an exec: OCI process, JSON */
    struct stdio io;
    struct output_hold hold; /* of its end */
    struct op *current;
    struct list queue;
    struct list waiters;
    size_t n_waiters;
    /* Start or checkpoint of init under way: once init has ended it gets no more than this. */
    struct runtime_call *call;
    uint32_t call_grace_ms;
    struct op *waits_for_end; /* a delete that goes on when the end has been told */
};

/* NULL: out of memory. */
struct process *process_new(struct container *c, const char *exec_id);
/* What a new one is connected to; "" and NULL: nothing. -ENOMEM. */
int process_set_streams(struct process *p, bool terminal, const char *stdin_path,
                        const char *stdout_path, const char *stderr_path);
struct process *process_ref(struct process *p);
struct process *process_unref(struct process *p); /* takes NULL; returns NULL */
static inline bool process_is_init(const struct process *p)
{
    return !p->exec_id;
}
/* Id towards clients: the exec's or the container's. */
const char *process_id(const struct process *p);
static inline bool process_is_paused(const struct process *p)
{
    return p->state == PROCESS_PAUSED || p->state == PROCESS_PAUSING;
}

/* Calls fn with the exit, at once when it has been told. ERR_RESOURCE_EXHAUSTED. */
int process_wait(struct process *p, void (*fn)(void *userdata, const struct process_exit *exit),
                 void *userdata, struct err *e);

/* Start of a process created before. */
void process_start(struct process *p, done_fn done, void *userdata);
/* ret_exit is filled before done comes with success. */
void process_delete(struct process *p, struct process_exit *ret_exit, done_fn done, void *userdata);
void process_kill(struct process *p, int signal, bool all, done_fn done, void *userdata);
int process_resize(struct process *p, uint32_t width, uint32_t height, struct err *e);

/*
 * For operations.
 */

/* A new one that will call begin when it is its turn; NULL: out of memory (done was called). text
 * is taken. */
struct op *op_new(struct process *p, bool queued, op_fn begin, done_fn done, void *userdata);
void op_submit(struct op *op);
/* Calls done and lets the next begin. e may be NULL or op's own error. Frees op. */
void op_end(struct op *op, const struct err *e);
/* Calls the runtime for op; when that fails to start, fn is called at once. */
void op_call(struct op *op, const struct runtime_request *request, runtime_call_fn fn);
/* The same for what makes no sense without init: when it ends the runtime has grace_ms left. fn
 * sets process->call to NULL. */
void op_call_while_alive(struct op *op, const struct runtime_request *request, uint32_t grace_ms,
                         runtime_call_fn fn);

/* Sets "cannot <verb> a <state> process" or what else containerd says for this state. */
int process_refuse(const struct process *p, const char *verb, struct err *e);

/* Reads the pid file the runtime wrote, and takes the process as our child. */
int process_adopt(struct process *p, const char *pid_file, struct err *e);
/* Tells the end if it is known and nothing has to come first. */
void process_tell_end(struct process *p);
/* Those that wait for its end are answered. */
void process_wake_waiters(struct process *p);
/* True while its output is being read; then process_tell_end() comes by itself. */
bool process_is_held(struct process *p);
/* Unconditionally; of init for container.c alone. */
void process_publish_end(struct process *p);

/*
 * Launch: create of init, start of an exec. Opens stdio, calls the runtime meanwhile, then adopts
 * the process it left in pid_file and connects the two. launched() finds the outcome in op->error.
 */
struct process_launch {
    const char *command;
    const char *pid_file;
    uint32_t timeout_ms;
    /* Adds the arguments behind the global part; console: path for --console-socket, or NULL. */
    void (*add_args)(struct op *op, struct runtime_args *args, const char *console);
    op_fn launched;
};
/* launch must be a constant but for pid_file, which is copied. */
void process_launch(struct op *op, const struct process_launch *launch);

/* Time limits of the runtime's commands. Creating and starting run hooks. */
#define PROCESS_LAUNCH_TIMEOUT_MS 60000
#define PROCESS_CALL_TIMEOUT_MS 20000

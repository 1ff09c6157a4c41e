/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input and output of one process of a container: what the process holds (pipes, a
 * terminal, /dev/null), what the client named (fifos, a file, a logging program), and the copying
 * between them.
 *
 * Life: stdio_open() makes the process's ends and begins to open the client's; the OCI runtime is
 * called with stdio_child_fds(), then stdio_release_child(); when the runtime has ended and
 * `opened` has come, stdio_connect() starts to copy output, and when the process is about to run,
 * stdio_connect_input() opens and copies input; when it has ended, stdio_finish() waits for the
 * rest of its output; stdio_done() closes everything at any time.
 *
 * Fifos: the client makes them and opens its ends when it likes. We hold both directions of each
 * output fifo, so that a client that goes away neither kills the container with SIGPIPE nor ends
 * the stream: the container waits in write(2) until somebody reads again. The client sees the end
 * when we close. Of stdin we hold a writer, so that input ends only when the client has closed its
 * own and CloseIO has closed ours. It is opened no earlier than needed: a client that has little to
 * say (ctr) may otherwise be through with it before Create is answered, and cannot call CloseIO
 * yet.
 */
#pragma once

#include "base/err.h"
#include "shim/console.h"
#include "shim/copy.h"
#include "shim/logger.h"
#include "shim/stdio_output.h"

/* How long a client may take to open its end of an output fifo. */
#define STDIO_OPEN_TIMEOUT_MS 30000
/* Output left behind by an ended process is waited for as long as bytes keep coming: */
#define STDIO_DRAIN_IDLE_MS 2000
#define STDIO_DRAIN_MAX_MS 10000

struct stdio;
typedef void (*stdio_opened_fn)(struct stdio *io, const struct err *e);
typedef void (*stdio_finished_fn)(struct stdio *io);

struct stdio_request {
    /* "" or NULL: none; what does not begin with '/' is in the bundle. */
    const char *stdin_path, *stdout_path, *stderr_path;
    bool terminal;
    uint32_t io_uid, io_gid; /* owner of the pipes */
    const char *namespace_;
    const char *id;   /* of the process: for the logging program */
    const char *name; /* of the console socket, unique in the bundle */
    const char *bundle;
};

struct stdio {
    struct reaper *reaper;
    bool terminal;
    struct console_socket console;
    int master_fd;
    int child_fds[3]; /* what the process gets; -EBADF: /dev/null */
    struct stdio_output output[2];
    struct copy input;
    char *input_path;    /* until copying begins */
    bool input_closed;   /* CloseIO came */
    int input_source_fd; /* the fifo, or a file */
    int input_target_fd; /* write end of the pipe, or a dup of the master */
    int input_holder_fd; /* our writer of the fifo */
    struct logger *logger;
    bool logger_is_ready;
    struct event_timer timer; /* opening, then finishing */
    uint64_t deadline_ms;
    uint64_t last_moved;
    stdio_opened_fn opened;
    stdio_finished_fn finished;
};

void stdio_init(struct stdio *io, struct reaper *reaper);
/* opened comes exactly once, perhaps before this returns, unless this fails. ERR_INVALID_ARGUMENT
 * and ERR_UNKNOWN. */
int stdio_open(struct stdio *io, const struct stdio_request *request, stdio_opened_fn opened,
               struct err *e);
/* Path for --console-socket, NULL without a terminal. */
const char *stdio_console_path(const struct stdio *io);
/* fds 0 to 2 of the process; NULL with a terminal. */
const int *stdio_child_fds(const struct stdio *io);
/* Closes our copies of the process's ends. */
void stdio_release_child(struct stdio *io);
/* Receives the terminal and starts to copy output. Without a terminal it may be called before the
 * runtime has ended, and again then. */
int stdio_connect(struct stdio *io, struct err *e);
/* Starts to copy input. Once; later calls are no-ops. */
int stdio_connect_input(struct stdio *io, struct err *e);
/* CloseIO. */
void stdio_close_input(struct stdio *io);
/* No terminal, no-op. */
int stdio_resize(struct stdio *io, uint32_t width, uint32_t height);
/* The process has ended: nothing more is read from the client. */
void stdio_end_input(struct stdio *io);
/* Waits for the rest of the output within the limits above and for the logging program; finished
 * comes once, perhaps at once. Everything but the logging program is closed by then. */
void stdio_finish(struct stdio *io, stdio_finished_fn finished);
/* Bytes that were printed and that no reader has taken from our pipes and fifos yet. */
uint64_t stdio_unread(const struct stdio *io);
/* What is left in fifos that were closed counts no more. */
void stdio_forget_rest(struct stdio *io);
/* Bytes that were copied so far. */
uint64_t stdio_moved(const struct stdio *io);
/* Gives up what is being waited for, a client that opens its end or the rest of the output: the
 * callback follows from the loop. */
void stdio_hurry(struct stdio *io);
void stdio_done(struct stdio *io);
/* What a failed runtime left on the container's stderr and nobody has read: for its error. Takes
 * the bytes. Returns how many. */
size_t stdio_take_stderr(struct stdio *io, char *ret, size_t size);

/*
 * For stdio.c.
 */

/* stdio_hurry() while a client's fifo is waited for. */
void stdio_hurry_opening(struct stdio *io);

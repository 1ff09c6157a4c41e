/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard streams of one process in a container, by fifos of our own (containerd's way): a
 * directory <random> below /run/wherry/fifo (for who is not root below $XDG_RUNTIME_DIR), mode
 * 0700, with <id>-stdin, <id>-stdout and <id>-stderr. The shim opens the other ends.
 *
 *     container_io_make()      before Tasks.Create or Tasks.Exec: makes and opens the fifos
 *     container_io_start()     after Tasks.Start: bytes begin to move
 *     container_io_finish()    after the exit: what is left comes out
 *     container_io_done()      closes; removes the directory unless it is kept
 */
#pragma once

#include "base/err.h"
#include "cli/pump.h"

struct container_io {
    char *dir;      /* the directory we made, NULL: none */
    char *paths[3]; /* stdin, stdout, stderr; "" where there is none */
    int fds[3];     /* our ends */
    struct pump pumps[3];
    struct detach_keys keys;
    bool terminal;
    bool keep;                                     /* leaves the directory for who attaches later */
    unsigned n_outputs;                            /* pumps of stdout and stderr still going */
    void (*on_stdin_end)(struct container_io *io); /* our end is closed: time for CloseIO */
    void (*on_output_gone)(struct container_io *io); /* nobody reads our stdout any more */
    void (*on_detach)(struct container_io *io);
};

void container_io_init(struct container_io *io);
void container_io_done(struct container_io *io);

#define CONTAINER_IO_BASE "/run/wherry/fifo"
/* Makes the fifos that are wanted; with a terminal there is no stderr. */
int container_io_make(struct container_io *io, const char *id, bool with_stdin, bool with_output,
                      bool terminal, struct err *e);
/* Opens the fifos of a running process. Empty paths are left out. */
int container_io_attach(struct container_io *io, const char *stdin_path, const char *stdout_path,
                        const char *stderr_path, bool terminal, struct err *e);
/* Bytes of stdout that nobody wanted to read. */
uint64_t container_io_discarded(const struct container_io *io);
/* Moves bytes between the fifos and our fds 0, 1 and 2. The callbacks are set before. */
int container_io_start(struct container_io *io, struct event_loop *loop, struct err *e);
/* Waits for the end of the outputs, at most timeout_ms: a process that was left behind may hold
 * them. */
void container_io_finish(struct container_io *io, struct event_loop *loop, int timeout_ms);
/* Removes a directory of fifos that a detached container left: only one of ours, by the path of one
 * of its fifos. */
void container_io_remove_left(const char *fifo_path);

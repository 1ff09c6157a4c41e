/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One of a process's two outputs on its way to the client: from a pipe, or a dup of the terminal's
 * master, into what the client named. That is a fifo, which is opened when somebody reads it, a
 * file, or the logging program's pipe. Embedded in its struct stdio, which opens the source.
 */
#pragma once

#include "base/err.h"
#include "shim/copy.h"

struct stdio;

struct stdio_output {
    struct stdio *io;
    struct copy copy;
    char *path;    /* of a fifo still to be opened */
    int source_fd; /* read end of the pipe, or a dup of the master */
    int target_fd; /* fifo, file, or the logging program's pipe */
    int rest_fd;   /* of a closed target: the fifo with what is still in it, to look at */
};

/* Whether path is a fifo: 1, 0, or negative errno. */
int stdio_is_fifo(const char *path);
/* "file://" and an absolute path; what is missing of it is made. ERR_INVALID_ARGUMENT. */
int stdio_output_open_uri(struct stdio_output *o, const char *uri, struct err *e);
/* A path, with or without "fifo://". A fifo is only noted. ERR_INVALID_ARGUMENT: none is given. */
int stdio_output_open_path(struct stdio_output *o, const char *path, struct err *e);
/* Opens the noted fifo if somebody reads it: 1, 0 when nobody does yet, negative errno. */
int stdio_output_try_fifo(struct stdio_output *o);
/* Bytes that no reader has taken yet, from our pipe, the copy and the fifo. */
uint64_t stdio_output_unread(const struct stdio_output *o);
/* Before it is closed: an eye on what is still in the fifo. */
void stdio_output_keep_rest(struct stdio_output *o);
/* All but the rest. */
void stdio_output_close(struct stdio_output *o);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A logging program of a client's choice (binary:///path?key=value&...): it reads the container's
 * output from fds 3 (stdout) and 4 (stderr) and closes fd 5, or writes a byte to it, when it is
 * ready. Its arguments are the query's keys and values, its environment CONTAINER_ID and
 * CONTAINER_NAMESPACE and nothing else.
 */
#pragma once

#include "base/err.h"
#include "shim/reaper.h"

#define LOGGER_READY_TIMEOUT_MS 30000
#define LOGGER_ARGS_MAX 1024

struct logger;

/* The words of a binary:// URI: path, then keys and first values in their order. Caller frees with
 * strv_free(). ERR_INVALID_ARGUMENT. */
int logger_parse_uri(const char *uri, char ***ret, struct err *e);

/* Starts it in directory cwd on the read ends given (borrowed). ready_fn comes once: e NULL, or why
 * it is not ready (it is killed then). needs_byte: closing fd 5 without a byte counts as failure
 * (binary-v2). */
typedef void (*logger_ready_fn)(void *userdata, const struct err *e);
int logger_new(struct reaper *reaper, const char *uri, const char *namespace_, const char *id,
               const char *cwd, int stdout_fd, int stderr_fd, logger_ready_fn ready, void *userdata,
               struct logger **ret, struct err *e);
/* To be called when no further output can come: gives it a second to end by itself, then SIGTERM,
 * then after 12 s SIGKILL. ended_fn comes once, perhaps at once. */
typedef void (*logger_ended_fn)(void *userdata);
void logger_finish(struct logger *l, logger_ended_fn ended, void *userdata);
/* Does not wait for it any longer: it is killed, and what ready_fn or ended_fn has to say follows
 * from the loop. */
void logger_hurry(struct logger *l);
/* Kills it if it still runs. Takes NULL. Returns NULL. */
struct logger *logger_free(struct logger *l);

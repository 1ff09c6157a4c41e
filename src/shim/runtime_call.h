/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of the OCI runtime (crun, runc) by its command line:
 *
 *     <path> --root ROOT [--debug] --log BUNDLE/log.json --log-format json [--criu PATH]
 *         [--systemd-cgroup] ARGS...
 *
 * The shim never waits for one: a call is a child with a deadline, after which it is killed. It has
 * a process group of its own, and a call that fails takes what is left of that along: a runtime that
 * goes on in the background would make its container when nobody expects it any more. What it
 * prints is kept up to a bound, the rest read and dropped. When it fails, the sentence is the
 * last error this call left in log.json, else what it printed, cleaned of what could disturb a
 * terminal or a log and cut to fit a struct err.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "shim/reaper.h"
#include "shim/runtime_program.h"

/* How the containers of one bundle are run. */
struct runtime {
    char *path; /* absolute */
    char *root; /* --root, with the namespace */
    char *bundle;
    char *log;                /* <bundle>/log.json */
    char *criu;               /* NULL: the first on $PATH. crun has no such flag */
    char *const *environment; /* borrowed; NULL: our own */
    bool systemd_cgroup;
    bool debug;
    struct runtime_program program;
    bool is_closed;
    struct list calls; /* under way */
};
#define RUNTIME_NULL                    \
    {                                   \
        .program = RUNTIME_PROGRAM_NULL \
    }
void runtime_done(struct runtime *r);
/* Kills the calls under way, which then fail, and refuses further ones. */
void runtime_close(struct runtime *r);
/* What of the environment is meant for whoever started us and for no container; ends in NULL. */
extern const char *const runtime_hidden_variables[];
/* Name of the program, for sentences. */
const char *runtime_name(const struct runtime *r);
/* Whether a call has failed since there is nothing at the runtime's path that can be executed. */
bool runtime_is_missing(const struct err *e);
/* Path of the runtime a client named: absolute, or looked up in $PATH. ERR_UNKNOWN in the words of
 * Go's os/exec, which dockerd looks for. */
int runtime_find(const char *name, char **ret, struct err *e);

#define RUNTIME_ARGS_MAX 48
/* A command line in the making; strings are borrowed. Too many arguments fail the call. */
struct runtime_args {
    const char *v[RUNTIME_ARGS_MAX + 1];
    size_t n;
};
void runtime_args_add(struct runtime_args *a, const char *arg);
/* The global part; without a log where the bundle is gone. */
void runtime_args_globals(struct runtime_args *a, const struct runtime *r);

struct runtime_request {
    const char *command;             /* "create": for sentences; a literal */
    const struct runtime_args *args; /* all of them, argv[0] first */
    const int *fds;    /* 0 to 2 of the runtime; NULL: /dev/null, and output is kept */
    const char *input; /* what it reads on fd 0, NULL: nothing */
    uint32_t timeout_ms;
    size_t max_output;
    bool leaves_process; /* the container's process becomes our child: the reaper is held */
};
#define RUNTIME_OUTPUT_MAX 16384

struct runtime_call;
/* e is NULL on success, else the outcome of the runtime or (runtime_is_missing()) of its start;
 * output ends in NUL and is borrowed for the duration of the call. */
typedef void (*runtime_call_fn)(void *userdata, const struct err *e, const char *output);

/* Starts; fn comes from the loop. On failure it does not. r must live until fn is called. */
int runtime_call_new(struct reaper *reaper, struct runtime *r,
                     const struct runtime_request *request, runtime_call_fn fn, void *userdata,
                     struct runtime_call **ret, struct err *e);
/* Kills what the runtime has left in its process group. To be called from fn, of a call that has
 * succeeded without doing what it was asked for; one that failed does so itself. */
void runtime_call_kill_rest(const struct runtime_call *call);
/* It has no more than timeout_ms from now on. */
void runtime_call_hurry(struct runtime_call *call, uint32_t timeout_ms);
/* Kills it with its group; fn is not called. Takes NULL. Returns NULL. */
struct runtime_call *runtime_call_free(struct runtime_call *call);

/* The last error among n bytes of JSON lines, cleaned; false if there is none. */
bool runtime_log_last_error(const char *lines, size_t n, char *ret, size_t size);
/* Cuts to size and makes controls into spaces; trims both ends. Valid UTF-8 stays valid. */
void runtime_clean_text(const char *text, size_t n, char *ret, size_t size);

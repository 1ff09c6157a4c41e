/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of a shim, as containerd's daemons write it: flags with one or two dashes, their
 * values behind '=' or as the next word, then the action.
 *
 *     containerd-shim-wherry-v2 -namespace NS -id ID -address GRPC [-publish-binary PATH]
 *                               [-bundle DIR] [-socket PATH] [-debug] [start | delete]
 *
 * Strings are borrowed from argv.
 */
#pragma once

#include "base/err.h"

enum args_action {
    ARGS_SERVE,
    ARGS_START,
    ARGS_DELETE,
    ARGS_VERSION, /* -v, -version */
    ARGS_INFO,    /* -info */
};

struct args {
    enum args_action action;
    const char *namespace_;
    const char *id;             /* "" unless given */
    const char *address;        /* the daemon's gRPC socket */
    const char *publish_binary; /* of containerd */
    const char *bundle;
    const char *socket;       /* to serve instead of fd 3 */
    const char *debug_socket; /* accepted, not used */
    bool debug;
    /* Runtime v1 only. */
    const char *workdir;
    const char *runtime_root;
    const char *criu;
    bool systemd_cgroup;
};

/* v1: with the flags of runtime v1's shim, which has no actions. ERR_INVALID_ARGUMENT. */
int args_parse(int argc, char *const *argv, bool v1, struct args *ret, struct err *e);

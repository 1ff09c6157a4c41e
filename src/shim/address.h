/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a shim listens: /run/containerd/s/<hex SHA-256 of "<daemon address>/<namespace>/<group>">,
 * so that every start for one group of one daemon finds the same socket. A unix:// prefix makes it
 * the address that daemons are told.
 */
#pragma once

#include "base/err.h"

#define ADDRESS_DIR "/run/containerd/s"
#define ADDRESS_PREFIX "unix://"

/* dir: NULL or "" for ADDRESS_DIR. The path, without prefix; the caller frees. NULL: out of memory.
 */
char *address_path(const char *dir, const char *daemon_address, const char *namespace_,
                   const char *group);
/* The daemon's ttrpc address, where events go, must lead to a socket: NULL and "" (there is none)
 * do. ERR_INVALID_ARGUMENT. */
int address_check_daemon(const char *address, struct err *e);
/* Cuts the prefix off. */
const char *address_to_path(const char *address);
/* Leaves "unix://<path>" in <bundle>/address, where daemons look after a restart. */
int address_write(const char *bundle, const char *path);
/* The path in <bundle>/address. -ENOENT, -EBADMSG. */
int address_read(const char *bundle, char **ret_path);

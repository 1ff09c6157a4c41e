/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image names as people write them and as they are stored.
 *
 *   busybox                      docker.io/library/busybox:latest
 *   grafana/loki:2.9             docker.io/grafana/loki:2.9
 *   localhost:5000/a/b           localhost:5000/a/b:latest
 *   busybox@sha256:...           docker.io/library/busybox@sha256:...
 *
 * The left column is "familiar", the right one "full". The grammar is that of the distribution
 * project: domain "/" path [ ":" tag ] [ "@" digest ], path at most 255 characters together with
 * the domain, tag at most 128. The first component is a domain when it holds '.' or ':', or is
 * "localhost", or has an upper-case letter.
 *
 * The daemon stores any non-empty image name without control bytes (reference_name_is_storable());
 * completing names is the business of clients.
 */
#pragma once

#include "base/err.h"

#define REFERENCE_NAME_MAX 255
#define REFERENCE_TAG_MAX 128
#define REFERENCE_STR_MAX 1024 /* bytes of input looked at; longer is refused */

struct reference {
    char *domain; /* "docker.io" */
    char *path;   /* "library/busybox" */
    char *tag;    /* NULL: none */
    char *digest; /* NULL: none */
};

void reference_done(struct reference *r);

/* Parses a familiar or full name. Adds docker.io and library/, but no tag.
 * ERR_INVALID_ARGUMENT `invalid reference "x": <why>`. */
int reference_parse(const char *s, struct reference *ret, struct err *e);

/* "domain/path[:tag][@digest]". The caller frees; NULL: out of memory. */
char *reference_format(const struct reference *r);
/* Without "docker.io/" and "docker.io/library/". The caller frees; NULL: out of memory. */
char *reference_format_familiar(const struct reference *r);

/* The full name, with ":latest" where neither tag nor digest is given. The caller frees. */
int reference_normalise(const char *s, char **ret, struct err *e);
/* The familiar form of a stored name; a copy of s where it is no reference. NULL: out of memory. */
char *reference_familiar(const char *s);

/* Whether the daemon stores an image under this name: not empty, at most 4096 bytes of UTF-8, no
 * control characters. */
bool reference_name_is_storable(const char *s);

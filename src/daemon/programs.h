/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where our own programs are: pinned once at start, so that a PATH that changes later cannot put
 * others in their place. Beside the running wherryd (a build folder, /usr/local/bin), else on PATH.
 */
#pragma once

#include "base/err.h"

struct programs {
    char *daemon; /* the running executable */
    char *dir;    /* its directory */
    char *shim;
    char *worker;
};

/* NOT_FOUND names the program that is missing and where it was looked for. */
int programs_find(struct programs *ret, struct err *e);
void programs_done(struct programs *p);

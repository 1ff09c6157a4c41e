/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files with several names, while a layer is written: which of them is in the layer already, and
 * which unchanged names wait for another one to turn out new. A file is forgotten with the last of
 * its names.
 */
#pragma once

#include "base/map.h"
#include "worker/changes.h"

/* An unchanged name. */
struct link_name {
    struct link_name *next;
    struct change_dir *dir;
    char path[];
};

struct link {
    uint64_t left; /* names yet to come */
    char *source;  /* its name in the layer; NULL: it is not there yet */
    struct link_name *waiting, **last;
};

struct links {
    struct map by_inode; /* "<dev>:<ino>" -> struct link */
};

void links_done(struct links *l);
/* The file, which has one more of its names seen. -ENOMEM. */
int links_see(struct links *l, const struct stat *st, struct link **ret);
/* After links_see() and what it was for: frees the link when no name is to come. */
void links_settle(struct links *l, const struct stat *st, struct link *link);

/* -ENOMEM. */
int link_wait(struct link *link, struct change_dir *dir, const char *path);
void link_forget_waiting(struct link *link);

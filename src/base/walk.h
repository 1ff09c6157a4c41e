/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking a directory tree of any depth with two fds and one small buffer: directory by directory,
 * never following a link, never crossing a mount.
 *
 * Going down opens the child, going up opens ".." and checks that it is the directory we came from,
 * so a tree that somebody moves about meanwhile ends the walk with -ESTALE and cannot lead it
 * astray.
 *
 *     struct walk w;
 *     struct walk_entry e;
 *     r = walk_init(&w, dir_fd, name);
 *     while (r >= 0 && (r = walk_next(&w, &e)) > 0) {
 *         if (e.event == WALK_ENTRY && e.is_dir)
 *             r = walk_enter(&w);      // optional: its entries follow, then WALK_LEFT
 *     }
 *     walk_done(&w);
 */
#pragma once

#include "base/attr.h"

enum walk_event {
    WALK_ENTRY, /* one name of the current directory */
    WALK_LEFT,  /* the directory `name` was walked through; we are in its parent again */
};

struct walk_entry {
    enum walk_event event;
    const char *name; /* valid until the next call */
    bool is_dir;
};

struct walk_level {
    uint64_t dev, ino; /* of the parent, to be found again */
    int64_t offset;    /* where reading the parent goes on */
    char *name;        /* of this directory in it */
};

struct walk {
    int fd; /* the current directory */
    struct walk_level *levels;
    size_t depth, allocated;
    char *left; /* the name handed out with WALK_LEFT */
    /* getdents64(2) */
    size_t at, filled;
    int64_t offset;
    const char *entry_name;
    _Alignas(8) char entries[2048];
};

/* dir_fd/name must be a directory, no link and no mount point (-ENOTDIR, -ELOOP, -EXDEV). name is
 * one component. On failure there is nothing to be done with w. */
int walk_init(struct walk *w, int dir_fd, const char *name);
void walk_done(struct walk *w);
/* 1 and an entry, 0 at the end of the tree, negative errno. */
int walk_next(struct walk *w, struct walk_entry *ret);
/* Goes into the directory just returned. -EXDEV: it is a mount point. */
int walk_enter(struct walk *w);
/* Reads the current directory from its start again. */
int walk_rewind(struct walk *w);

/* SPDX-License-Identifier: Apache-2.0 */
/* Whether two files, each `name` in a directory of its own, are the same (changes.h says when). */
#pragma once

#include "worker/xattrs.h"

struct same {
    struct xattrs *left, *right;
    uint8_t *blocks; /* two, to compare content */
};

int same_init(struct same *s); /* -ENOMEM */
void same_done(struct same *s);

/* 1, 0, negative errno (-ENOENT: one of them has vanished). left and right are what fstatat(2) says
 * of them. */
int same_file(struct same *s, int left_dir, const struct stat *left, int right_dir,
              const struct stat *right, const char *name);

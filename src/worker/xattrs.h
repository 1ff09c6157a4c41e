/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extended attributes as layers carry them: `user.`, capabilities and ACLs. What steers overlayfs,
 * the kernel's integrity or its security modules belongs to a machine, not to a layer, and is
 * neither written into one nor taken from one.
 */
#pragma once

#include "base/buf.h"
#include "worker/tree.h"

#define XATTRS_BYTES_MAX (8u << 20) /* of the values of one file */

struct xattrs {
    struct tree_xattr list[TREE_XATTRS_MAX]; /* by name */
    size_t n;
    char *names;
    struct buf values;
};

/* NULL: out of memory. */
struct xattrs *xattrs_new(void);
/* Takes NULL. Returns NULL. */
struct xattrs *xattrs_free(struct xattrs *x);

bool xattrs_belong_to_layers(const char *name);
/* Those of an open file or directory that belong to layers; none where there is no support.
 * -E2BIG: more than TREE_XATTRS_MAX or XATTRS_BYTES_MAX. */
int xattrs_read(struct xattrs *x, int fd);
bool xattrs_equal(const struct xattrs *a, const struct xattrs *b);

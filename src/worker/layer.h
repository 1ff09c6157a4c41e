/* SPDX-License-Identifier: Apache-2.0 */
/* A tar into a tree: what both the worker and its fuzz target run. */
#pragma once

#include "worker/tar_reader.h"
#include "worker/tree.h"

/* Reads to the end of the archive (not of the source). *ret_entries may be NULL. */
int layer_apply(struct tree *tree, tar_source_fn fn, void *source, uint64_t max_entries, bool sync,
                uint64_t *ret_entries, struct err *e);

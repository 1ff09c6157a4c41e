/* SPDX-License-Identifier: Apache-2.0 */
/* From the members of an archive to images: names, labels that hold the parts together, records. */
#pragma once

#include "cli/archive.h"
#include "oci/image.h"

#define IMPORT_IMAGES_MAX 1000

struct import_image {
    char *name;
    struct descriptor target;
};
struct import {
    struct cli *cli;
    const struct archive *archive;
    const char *name;       /* --name; NULL: what the archive says */
    const char *ref_prefix; /* for the names of writes */
    struct import_image *images;
    size_t n;
};
void import_done(struct import *i);
/*
 * Reads index.json, or manifest.json of `docker save`; checks that every part is there and labels
 * indexes and manifests with their parts, so that they are kept. Fills images.
 */
int import_interpret(struct import *i, struct err *e);
/* Makes the image or points it at the new target. */
int import_store(struct cli *cli, const struct import_image *image, struct err *e);

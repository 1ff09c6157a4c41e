/* SPDX-License-Identifier: Apache-2.0 */
/* Images of the daemon as a client sees them: a name, documents in the content store, snapshots. */
#pragma once

#include "base/buf.h"
#include "cli/cli.h"
#include "oci/image.h"
#include "services.images.v1.pb-c.h"

#define IMAGE_DEFAULT_SNAPSHOTTER "overlayfs"

/* An image for one platform, with what its documents say. */
struct image {
    char *name; /* as stored */
    char *target_digest;
    char *manifest_digest;
    struct image_manifest manifest;
    struct image_config config;
    char *chain_id; /* of the top layer's snapshot; "" for an image without layers */
};
void image_done(struct image *i);

/* What --snapshotter, CONTAINERD_SNAPSHOTTER or the default say. */
const char *image_snapshotter(const char *flag);

/*
 * Looks an image up: by the full name of what people write, then by the name exactly as written.
 * ERR_NOT_FOUND says how to import one. The reply is the caller's (pb_free()).
 */
int image_get(struct cli *cli, const char *name, Pb__Images__GetImageResponse **ret, struct err *e);
/* Reads manifest and configuration for this machine's platform. */
int image_load(struct cli *cli, const Pb__Images__Image *image, struct image *ret, struct err *e);

/* A whole blob. ERR_RESOURCE_EXHAUSTED over max bytes. */
int content_read(struct cli *cli, const char *digest, size_t max, struct buf *ret, struct err *e);
/* Sets one label of a blob. */
int content_label(struct cli *cli, const char *digest, const char *key, const char *value,
                  struct err *e);

/* The chain id of one more layer: chain(1) = diff(1), chain(n) = sha256("chain(n-1) diff(n)").
 * *chain is replaced; "" before the first. */
int image_chain_next(char **chain, const char *diff_id, struct err *e);

/*
 * Makes the snapshots of an image's layers that are missing: Prepare, Apply, Commit each, bottom
 * up; what comes out must have the digest that the configuration names. Call it under a lease
 * (lease_begin()): nothing else holds the snapshots until the label on the configuration does.
 */
int image_unpack(struct cli *cli, const struct image *i, const char *snapshotter, struct err *e);

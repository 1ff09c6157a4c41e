/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints by name. One that the daemon keeps is a blob, an OCI index of what Tasks.Checkpoint
 * answered, with labels that say whose it is: it is a root of the daemon's garbage collection, so
 * it stays until it is removed, and every client finds it. One in a directory of the user's is a
 * directory of CRIU's images, DIR/NAME, of which the daemon knows nothing.
 */
#pragma once

#include "cli/rpc.h"
#include "oci/image.h"

#define LABEL_CHECKPOINT_CONTAINER "wherry/checkpoint-container"
#define LABEL_CHECKPOINT_NAME "wherry/checkpoint-name"

struct checkpoint {
    char *container; /* NULL: not known */
    char *name;
    char *digest; /* of the index; NULL: in a directory */
    struct timespec created_at;
};
struct checkpoint_list {
    struct checkpoint *checkpoints;
    size_t n;
};
void checkpoint_list_done(struct checkpoint_list *l);

/* Those of a container (NULL: of all), in no order. */
int checkpoint_list(struct cli *cli, const char *container, struct checkpoint_list *ret,
                    struct err *e);
/* The digest of a kept one; the caller frees. ERR_NOT_FOUND says how to list them. */
int checkpoint_find(struct cli *cli, const char *container, const char *name, char **ret,
                    struct err *e);
/* Keeps what Tasks.Checkpoint has stored, under the lease of that call. */
int checkpoint_keep(struct cli *cli, const char *container, const char *name,
                    const struct descriptor *parts, size_t n, struct err *e);
/* The images of a kept one, for Tasks.Create. */
int checkpoint_images(struct cli *cli, const char *digest, struct descriptor *ret, struct err *e);
/* What it consists of goes with the next garbage collection. */
int checkpoint_remove(struct cli *cli, const char *digest, struct err *e);
/* All of a container. */
int checkpoint_remove_all(struct cli *cli, const char *container, struct err *e);

/* The same in a directory: the absolute path of DIR/NAME; the caller frees. The name is one path
 * component. */
int checkpoint_path(const char *dir, const char *name, char **ret, struct err *e);
/* Whether that is a directory of images. */
bool checkpoint_is_there(const char *path);
int checkpoint_list_dir(const char *dir, struct checkpoint_list *ret, struct err *e);

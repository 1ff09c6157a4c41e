/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image documents: index, manifest, configuration (OCI image specification 1.1), Docker's schema 2
 * equals of them, and the manifest.json of `docker save`. Parsed from bytes that nobody vouches
 * for: sizes, nesting, counts and every digest are checked, and a document that could be read as
 * two kinds
 * (`manifests` beside `layers` or `config`) or whose mediaType says another kind is refused.
 *
 * All structs own what they hold; x_done() frees it and takes a zeroed struct. Errors are
 * ERR_INVALID_ARGUMENT with one sentence, or ERR_RESOURCE_EXHAUSTED for a document over its cap.
 */
#pragma once

#include "base/strmap.h"
#include "oci/platform.h"

#define IMAGE_MANIFEST_MAX (4u << 20) /* bytes of an index, manifest or docker manifest.json */
#define IMAGE_CONFIG_MAX (20u << 20)  /* bytes of a configuration */
#define IMAGE_MANIFESTS_MAX 10000     /* of one index */
#define IMAGE_LAYERS_MAX 10000        /* of one manifest */
#define IMAGE_STRINGS_MAX 100000      /* of one list in a configuration */

#define MEDIA_TYPE_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define MEDIA_TYPE_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define MEDIA_TYPE_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define MEDIA_TYPE_OCI_LAYER "application/vnd.oci.image.layer.v1.tar"
#define MEDIA_TYPE_OCI_LAYER_GZIP "application/vnd.oci.image.layer.v1.tar+gzip"
#define MEDIA_TYPE_OCI_LAYER_ZSTD "application/vnd.oci.image.layer.v1.tar+zstd"
#define MEDIA_TYPE_DOCKER_INDEX "application/vnd.docker.distribution.manifest.list.v2+json"
#define MEDIA_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define MEDIA_TYPE_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define MEDIA_TYPE_DOCKER_LAYER "application/vnd.docker.image.rootfs.diff.tar"
#define MEDIA_TYPE_DOCKER_LAYER_GZIP "application/vnd.docker.image.rootfs.diff.tar.gzip"

#define ANNOTATION_IMAGE_NAME "io.containerd.image.name"
#define ANNOTATION_REF_NAME "org.opencontainers.image.ref.name"

enum image_kind { IMAGE_UNKNOWN, IMAGE_INDEX, IMAGE_MANIFEST, IMAGE_CONFIG, IMAGE_LAYER };
/* By media type alone; parameters after ';' are not looked at. NULL is IMAGE_UNKNOWN. */
enum image_kind image_kind_of(const char *media_type);
/* "index" and so on, for sentences. */
const char *image_kind_name(enum image_kind kind);

enum layer_format {
    LAYER_NOT,  /* no layer type we can apply */
    LAYER_AUTO, /* Docker's type: look at the bytes */
    LAYER_TAR,
    LAYER_GZIP,
    LAYER_ZSTD,
};
enum layer_format image_layer_format(const char *media_type);

struct descriptor {
    char *media_type; /* never NULL after parsing; "" where the document has none */
    char *digest;     /* valid (oci/digest.h) */
    int64_t size;     /* bytes, never negative */
    char **urls;      /* NULL or NULL-terminated */
    struct strmap annotations;
    char *artifact_type; /* NULL: none */
    bool has_platform;
    struct platform platform;
};
void descriptor_done(struct descriptor *d);
int descriptor_copy(struct descriptor *to, const struct descriptor *from); /* -ENOMEM */

struct image_index {
    char *media_type; /* NULL where the document does not say */
    struct descriptor *manifests;
    size_t n_manifests;
    struct strmap annotations;
};
void image_index_done(struct image_index *x);
int image_index_parse(const void *bytes, size_t n, struct image_index *ret, struct err *e);
/* An OCI index; the same index gives the same bytes. The caller frees. */
int image_index_format(const struct image_index *x, char **ret, struct err *e);
/* The manifest that fits `want` best, the first of equals; NULL when none fits. Descriptors without
 * a platform are tried last and only when nothing else fits. */
const struct descriptor *image_index_choose(const struct image_index *x,
                                            const struct platform *want);

struct image_manifest {
    char *media_type;
    char *artifact_type;
    struct descriptor config;
    struct descriptor *layers;
    size_t n_layers;
    struct strmap annotations;
};
void image_manifest_done(struct image_manifest *m);
int image_manifest_parse(const void *bytes, size_t n, struct image_manifest *ret, struct err *e);
int image_manifest_format(const struct image_manifest *m, char **ret, struct err *e);

/* What a container inherits from its image ("config" of the configuration). NULL: not given. */
struct image_config {
    struct platform platform;
    char *created; /* RFC 3339 as written */
    char *author;
    char *user;
    char *working_dir;
    char *stop_signal;
    char **env; /* "NAME=value" each */
    char **entrypoint;
    char **cmd;
    char **volumes;       /* keys of the object, sorted */
    char **exposed_ports; /* keys of the object, sorted */
    struct strmap labels;
    char **diff_ids; /* valid digests, bottom layer first */
    size_t n_diff_ids;
    size_t n_history;
};
void image_config_done(struct image_config *c);
int image_config_parse(const void *bytes, size_t n, struct image_config *ret, struct err *e);

/* manifest.json of a `docker save` archive: names of members of the archive, cleaned of nothing. */
struct docker_archive_image {
    char *config;     /* "<hex>.json" or "blobs/sha256/<hex>" */
    char **repo_tags; /* may be NULL */
    char **layers;    /* "<id>/layer.tar" and the like, bottom first */
};
struct docker_archive {
    struct docker_archive_image *images;
    size_t n_images;
};
void docker_archive_done(struct docker_archive *a);
int docker_archive_parse(const void *bytes, size_t n, struct docker_archive *ret, struct err *e);

/* The content of the file `oci-layout`: ERR_INVALID_ARGUMENT unless its version is 1.x. */
int image_layout_check(const void *bytes, size_t n, struct err *e);

/* Of the bytes of an index or manifest: by its members, checked against its mediaType. */
int image_detect_kind(const void *bytes, size_t n, enum image_kind *ret, struct err *e);

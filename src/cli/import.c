/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/import.h"

#include <stdio.h>
#include <time.h>

#include "base/str.h"
#include "cli/content_writer.h"
#include "cli/image.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "oci/reference.h"

#define DEPTH_MAX 4

void import_done(struct import *i)
{
    for (size_t n = 0; n < i->n; n++) {
        free(i->images[n].name);
        descriptor_done(&i->images[n].target);
    }
    free(i->images);
    *i = (struct import){};
}

static int add_image(struct import *i, const char *name, const struct descriptor *target,
                     struct err *e)
{
    struct import_image *images;

    if (i->n >= IMPORT_IMAGES_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the archive names more than %d images",
                       IMPORT_IMAGES_MAX);
    images = reallocarray(i->images, i->n + 1, sizeof(*images));
    if (!images)
        return err_oom(e);
    i->images = images;
    images[i->n] = (struct import_image){.name = strdup(name)};
    if (!images[i->n].name || descriptor_copy(&images[i->n].target, target) < 0) {
        free(images[i->n].name);
        return err_oom(e);
    }
    i->n++;
    return 0;
}

static int set_label(struct strmap *labels, const char *prefix, size_t n, const char *digest,
                     struct err *e)
{
    char key[64];

    snprintf(key, sizeof(key), "containerd.io/gc.ref.content.%s.%zu", prefix, n);
    return strmap_set(labels, key, digest) < 0 ? err_oom(e) : 0;
}

/* 1: there; 0: not; or an error. */
static int is_there(struct import *i, const char *digest, struct err *e)
{
    return archive_has_blob(i->archive, digest) ? 1 : content_exists(i->cli, digest, e);
}

static int need(struct import *i, const char *what, const char *digest, struct err *e)
{
    int r = is_there(i, digest, e);

    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "the archive lacks %s %s", what, digest);
    return r < 0 ? r : 0;
}

static int label_manifest(struct import *i, const char *digest, const struct buf *bytes,
                          struct err *e)
{
    _cleanup_(image_manifest_done) struct image_manifest m = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    int r = image_manifest_parse(buf_head(bytes), bytes->len, &m, e);

    if (r == 0)
        r = need(i, "the configuration", m.config.digest, e);
    if (r == 0 && strmap_set(&labels, "containerd.io/gc.ref.content.config", m.config.digest) < 0)
        r = err_oom(e);
    for (size_t n = 0; n < m.n_layers && r == 0; n++) {
        r = need(i, "layer", m.layers[n].digest, e);
        if (r == 0)
            r = set_label(&labels, "l", n, m.layers[n].digest, e);
    }
    return r < 0 ? r : content_set_labels(i->cli, digest, &labels, e);
}

/* Labels a manifest, or an index and what it names as far as that came along. `depth` bounds the
 * recursion. */
static int label_tree(struct import *i, const struct descriptor *d, unsigned depth, struct err *e)
{
    _cleanup_(buf_done) struct buf bytes = {};
    _cleanup_(image_index_done) struct image_index index = {};
    _cleanup_(strmap_done) struct strmap labels = {};
    enum image_kind kind = IMAGE_UNKNOWN;
    size_t found = 0;
    int r = content_read(i->cli, d->digest, IMAGE_MANIFEST_MAX, &bytes, e);

    if (r == 0)
        r = image_detect_kind(buf_head(&bytes), bytes.len, &kind, e);
    if (r < 0)
        return r;
    if (kind == IMAGE_MANIFEST)
        return label_manifest(i, d->digest, &bytes, e);
    if (depth >= DEPTH_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "the archive's indexes are nested too deeply");
    r = image_index_parse(buf_head(&bytes), bytes.len, &index, e);
    for (size_t n = 0; n < index.n_manifests && r >= 0; n++) {
        r = is_there(i, index.manifests[n].digest, e);
        if (r != 1)
            continue;
        r = label_tree(i, &index.manifests[n], depth + 1, e);
        if (r == 0)
            r = set_label(&labels, "m", n, index.manifests[n].digest, e);
        found++;
    }
    if (r < 0)
        return r;
    if (found == 0)
        return err_set(e, ERR_NOT_FOUND, "the archive has none of the images that %s names",
                       d->digest);
    return content_set_labels(i->cli, d->digest, &labels, e);
}

static void date_name(char out[32])
{
    time_t now = time(NULL);
    struct tm tm;

    strftime(out, 32, "import-%Y-%m-%d", gmtime_r(&now, &tm));
}

/* The name a descriptor of index.json carries, completed. */
static int name_of(const struct import *i, const struct descriptor *d, char **ret, struct err *e)
{
    const char *full = strmap_get(&d->annotations, ANNOTATION_IMAGE_NAME);
    const char *ref = strmap_get(&d->annotations, ANNOTATION_REF_NAME);
    _free_ char *text = NULL;
    char base[32];

    if (i->name)
        return reference_normalise(i->name, ret, e);
    if (!str_empty(full) && reference_name_is_storable(full)) {
        *ret = strdup(full);
        return *ret ? 0 : err_oom(e);
    }
    if (!str_empty(ref) && strpbrk(ref, ":/"))
        return reference_normalise(ref, ret, e);
    date_name(base);
    /* A tag alone, or nothing at all. */
    text = str_empty(ref) ? str_printf("%s@%s", base, d->digest) : str_printf("%s:%s", base, ref);
    return text ? reference_normalise(text, ret, e) : err_oom(e);
}

static bool is_named(const struct descriptor *d)
{
    return strmap_get(&d->annotations, ANNOTATION_IMAGE_NAME) ||
           strmap_get(&d->annotations, ANNOTATION_REF_NAME);
}

static int interpret_layout(struct import *i, const struct archive_member *index_json,
                            struct err *e)
{
    _cleanup_(image_index_done) struct image_index index = {};
    const struct archive_member *layout = archive_find(i->archive, "oci-layout");
    bool any_named = false;
    int r = 0;

    if (layout && layout->text)
        r = image_layout_check(layout->text, (size_t)layout->size, e);
    if (r == 0)
        r = image_index_parse(index_json->text, (size_t)index_json->size, &index, e);
    if (r < 0)
        return r;
    if (index.n_manifests == 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "the archive's index.json names no image");
    if (i->name && index.n_manifests > 1)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "the archive holds %zu images, so one --name does not do; leave it out",
                       index.n_manifests);
    for (size_t n = 0; n < index.n_manifests; n++)
        any_named = any_named || is_named(&index.manifests[n]);
    for (size_t n = 0; n < index.n_manifests && r == 0; n++) {
        const struct descriptor *d = &index.manifests[n];
        _free_ char *name = NULL;

        if (any_named && !is_named(d))
            continue; /* attestations and the like */

        r = need(i, "the image", d->digest, e);
        if (r == 0)
            r = label_tree(i, d, 0, e);
        if (r == 0)
            r = name_of(i, d, &name, e);
        if (r == 0)
            r = add_image(i, name, d, e);
    }
    return r;
}

static int fill_descriptor(struct descriptor *d, const char *media_type, const char *digest,
                           int64_t size, struct err *e)
{
    d->media_type = strdup(media_type);
    d->digest = strdup(digest);
    d->size = size;
    return d->media_type && d->digest ? 0 : err_oom(e);
}

/* The manifest that `docker save` leaves out. */
static int docker_manifest(struct import *i, const struct docker_archive_image *image,
                           struct descriptor *ret, struct err *e)
{
    _cleanup_(image_manifest_done) struct image_manifest m = {};
    const struct archive_member *config = archive_find(i->archive, image->config);
    size_t n_layers = strv_len(image->layers);
    _free_ char *text = NULL, *ref = NULL;
    char digest[DIGEST_STR_MAX];
    int r;

    if (!config)
        return err_set(e, ERR_NOT_FOUND, "the archive lacks %s", image->config);
    snprintf(digest, sizeof(digest), "%s", config->digest);
    ref = str_printf("%s-document-%zu", i->ref_prefix, i->n);
    if (!ref)
        return err_oom(e);
    r = config->text
            ? content_write_bytes(i->cli, ref, config->text, (size_t)config->size, digest, e)
            : 0;
    if (r == 0)
        r = fill_descriptor(&m.config, MEDIA_TYPE_DOCKER_CONFIG, digest, config->size, e);
    m.layers = calloc(n_layers + 1, sizeof(*m.layers));
    if (!m.layers)
        return err_oom(e);
    for (size_t n = 0; n < n_layers && r == 0; n++) {
        const struct archive_member *layer = archive_find(i->archive, image->layers[n]);

        if (!layer || !*layer->digest)
            return err_set(e, ERR_NOT_FOUND, "the archive lacks layer %s", image->layers[n]);
        r = fill_descriptor(&m.layers[n], MEDIA_TYPE_DOCKER_LAYER, layer->digest, layer->size, e);
        m.n_layers++;
    }
    m.media_type = strdup(MEDIA_TYPE_DOCKER_MANIFEST);
    if (!m.media_type)
        return err_oom(e);
    if (r == 0)
        r = image_manifest_format(&m, &text, e);
    if (r == 0)
        r = content_write_bytes(i->cli, ref, text, strlen(text), digest, e);
    return r < 0 ? r : fill_descriptor(ret, m.media_type, digest, (int64_t)strlen(text), e);
}

static int docker_names(struct import *i, const struct docker_archive_image *image,
                        const struct descriptor *target, struct err *e)
{
    _free_ char *only = NULL;
    int r = 0;

    if (i->name || !image->repo_tags || !image->repo_tags[0]) {
        r = name_of(i, target, &only, e);
        return r < 0 ? r : add_image(i, only, target, e);
    }
    for (char **tag = image->repo_tags; *tag && r == 0; tag++) {
        _free_ char *name = NULL;

        r = reference_normalise(*tag, &name, e);
        if (r == 0)
            r = add_image(i, name, target, e);
    }
    return r;
}

static int interpret_docker(struct import *i, const struct archive_member *manifest_json,
                            struct err *e)
{
    _cleanup_(docker_archive_done) struct docker_archive archive = {};
    int r = docker_archive_parse(manifest_json->text, (size_t)manifest_json->size, &archive, e);

    if (r < 0)
        return r;
    if (i->name && archive.n_images > 1)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "the archive holds %zu images, so one --name does not do; leave it out",
                       archive.n_images);
    for (size_t n = 0; n < archive.n_images && r == 0; n++) {
        _cleanup_(descriptor_done) struct descriptor target = {};
        struct buf none = {};

        r = docker_manifest(i, &archive.images[n], &target, e);
        if (r == 0)
            r = content_read(i->cli, target.digest, IMAGE_MANIFEST_MAX, &none, e);
        if (r == 0)
            r = label_manifest(i, target.digest, &none, e);
        buf_done(&none);
        if (r == 0)
            r = docker_names(i, &archive.images[n], &target, e);
    }
    return r;
}

int import_interpret(struct import *i, struct err *e)
{
    const struct archive_member *index = archive_find(i->archive, "index.json");
    const struct archive_member *manifest = archive_find(i->archive, "manifest.json");

    if (index && index->text)
        return interpret_layout(i, index, e);
    if (manifest && manifest->text)
        return interpret_docker(i, manifest, e);
    return err_set(e, ERR_INVALID_ARGUMENT,
                   "this is no image archive: it has neither index.json (OCI) nor manifest.json "
                   "(docker save)");
}

int import_store(struct cli *cli, const struct import_image *image, struct err *e)
{
    Pb__Images__CreateImageRequest create = PB__IMAGES__CREATE_IMAGE_REQUEST__INIT;
    Pb__Images__UpdateImageRequest update = PB__IMAGES__UPDATE_IMAGE_REQUEST__INIT;
    Pb__Images__Image record = PB__IMAGES__IMAGE__INIT;
    Pb__Types__Descriptor target = PB__TYPES__DESCRIPTOR__INIT;
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    char *path = (char *)"target";
    int r;

    target.media_type = image->target.media_type;
    target.digest = image->target.digest;
    target.size = image->target.size;
    record.name = image->name;
    record.target = &target;
    create.image = &record;
    r = RPC(cli, "images.v1.Images/Create", &create, pb__images__create_image_response, NULL, e);
    if (r == 0 || e->code != ERR_ALREADY_EXISTS)
        return r;
    mask.paths = &path;
    mask.n_paths = 1;
    update.image = &record;
    update.update_mask = &mask;
    return RPC(cli, "images.v1.Images/Update", &update, pb__images__update_image_response, NULL, e);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Media types, descriptors, index and manifest. The configuration is in image_config.c, what is
 * written in image_format.c. */
#include "oci/image.h"

#include "base/str.h"
#include "oci/digest.h"
#include "oci/document.h"

static const struct {
    const char *media_type;
    enum image_kind kind;
    enum layer_format format;
} media_types[] = {
    {MEDIA_TYPE_OCI_INDEX, IMAGE_INDEX, LAYER_NOT},
    {MEDIA_TYPE_DOCKER_INDEX, IMAGE_INDEX, LAYER_NOT},
    {MEDIA_TYPE_OCI_MANIFEST, IMAGE_MANIFEST, LAYER_NOT},
    {MEDIA_TYPE_DOCKER_MANIFEST, IMAGE_MANIFEST, LAYER_NOT},
    {MEDIA_TYPE_OCI_CONFIG, IMAGE_CONFIG, LAYER_NOT},
    {MEDIA_TYPE_DOCKER_CONFIG, IMAGE_CONFIG, LAYER_NOT},
    {MEDIA_TYPE_OCI_LAYER, IMAGE_LAYER, LAYER_TAR},
    {MEDIA_TYPE_OCI_LAYER_GZIP, IMAGE_LAYER, LAYER_GZIP},
    {MEDIA_TYPE_OCI_LAYER_ZSTD, IMAGE_LAYER, LAYER_ZSTD},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar", IMAGE_LAYER, LAYER_TAR},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", IMAGE_LAYER, LAYER_GZIP},
    {"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", IMAGE_LAYER, LAYER_ZSTD},
    {MEDIA_TYPE_DOCKER_LAYER, IMAGE_LAYER, LAYER_AUTO},
    {MEDIA_TYPE_DOCKER_LAYER_GZIP, IMAGE_LAYER, LAYER_AUTO},
    {"application/vnd.docker.image.rootfs.diff.tar.zstd", IMAGE_LAYER, LAYER_AUTO},
    {"application/vnd.docker.image.rootfs.foreign.diff.tar", IMAGE_LAYER, LAYER_AUTO},
    {"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", IMAGE_LAYER, LAYER_AUTO},
};

static size_t find_media_type(const char *s)
{
    size_t n = strcspn(str_or_empty(s), "; ");
    size_t i = 0;
    for (; i < ARRAY_SIZE(media_types); i++)
        if (strlen(media_types[i].media_type) == n &&
            !memcmp(media_types[i].media_type, str_or_empty(s), n))
            break;
    return i;
}

enum image_kind image_kind_of(const char *media_type)
{
    size_t i = find_media_type(media_type);
    return i < ARRAY_SIZE(media_types) ? media_types[i].kind : IMAGE_UNKNOWN;
}

const char *image_kind_name(enum image_kind kind)
{
    static const char *const names[] = {
        [IMAGE_UNKNOWN] = "unknown", [IMAGE_INDEX] = "index", [IMAGE_MANIFEST] = "manifest",
        [IMAGE_CONFIG] = "config",   [IMAGE_LAYER] = "layer",
    };
    return names[kind];
}

enum layer_format image_layer_format(const char *media_type)
{
    size_t i = find_media_type(media_type);
    return i < ARRAY_SIZE(media_types) ? media_types[i].format : LAYER_NOT;
}

void descriptor_done(struct descriptor *d)
{
    free(d->media_type);
    free(d->digest);
    free(d->artifact_type);
    strv_free(d->urls);
    strmap_done(&d->annotations);
    *d = (struct descriptor){0};
}

/* A copy of s in *to, which is NULL before; NULL stays NULL. */
static int copy_string(char **to, const char *s)
{
    if (s && !(*to = strdup(s)))
        return -ENOMEM;
    return 0;
}

int descriptor_copy(struct descriptor *to, const struct descriptor *from)
{
    _cleanup_(descriptor_done) struct descriptor d = {
        .size = from->size,
        .has_platform = from->has_platform,
        .platform = from->platform,
    };

    if (copy_string(&d.media_type, from->media_type) < 0 ||
        copy_string(&d.digest, from->digest) < 0 ||
        copy_string(&d.artifact_type, from->artifact_type) < 0 ||
        strmap_copy(&d.annotations, &from->annotations) < 0)
        return -ENOMEM;
    if (from->urls && !(d.urls = strv_dup(from->urls)))
        return -ENOMEM;
    *to = d;
    d = (struct descriptor){0};
    return 0;
}

static int parse_platform(const json_t *j, struct descriptor *d, struct err *e)
{
    json_t *p = NULL;
    _free_ char *os = NULL;
    _free_ char *architecture = NULL;
    _free_ char *variant = NULL;

    int r = document_object(j, "platform", &p, e);
    if (r < 0 || !p)
        return r;
    if ((r = document_string(p, "os", &os, e)) < 0 ||
        (r = document_string(p, "architecture", &architecture, e)) < 0 ||
        (r = document_string(p, "variant", &variant, e)) < 0)
        return r;
    /* A platform with a name that is none matches nothing, as an unknown one would. */
    d->has_platform = true;
    if (platform_set(&d->platform, os, architecture, variant) < 0)
        d->platform = (struct platform){.os = "unknown", .architecture = "unknown"};
    return 0;
}

static int parse_descriptor(const json_t *j, struct descriptor *ret, struct err *e)
{
    _cleanup_(descriptor_done) struct descriptor d = {.size = -1};

    if (!json_is_object(j))
        return err_set(e, ERR_INVALID_ARGUMENT, "descriptor is not an object");
    int r;
    if ((r = document_string(j, "mediaType", &d.media_type, e)) < 0 ||
        (r = document_string(j, "digest", &d.digest, e)) < 0 ||
        (r = document_string(j, "artifactType", &d.artifact_type, e)) < 0 ||
        (r = document_int(j, "size", &d.size, e)) < 0 ||
        (r = document_strv(j, "urls", IMAGE_STRINGS_MAX, &d.urls, e)) < 0 ||
        (r = document_strmap(j, "annotations", &d.annotations, e)) < 0 ||
        (r = parse_platform(j, &d, e)) < 0)
        return r;
    if (!d.media_type && !(d.media_type = strdup("")))
        return err_oom(e);
    if (!digest_is_valid(d.digest)) {
        _free_ char *quoted = str_quote(str_or_empty(d.digest));
        return err_set(e, ERR_INVALID_ARGUMENT, "descriptor digest %s: %s", str_or_empty(quoted),
                       digest_problem(d.digest));
    }
    if (d.size < 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "descriptor of %s has no valid size", d.digest);
    *ret = d;
    d = (struct descriptor){0};
    return 0;
}

static int parse_descriptors(const json_t *j, const char *key, size_t max, struct descriptor **ret,
                             size_t *ret_n, struct err *e)
{
    json_t *list = NULL;
    int r = document_array(j, key, &list, e);
    if (r < 0 || !list)
        return r;
    size_t n = json_array_size(list);
    if (n > max)
        return err_set(e, ERR_INVALID_ARGUMENT, "\"%s\" has %zu descriptors, more than %zu", key, n,
                       max);
    if (n == 0)
        return 0;

    struct descriptor *d = calloc(n, sizeof(*d));
    if (!d)
        return err_oom(e);
    for (size_t i = 0; i < n; i++) {
        r = parse_descriptor(json_array_get(list, i), &d[i], e);
        if (r < 0) {
            while (i > 0)
                descriptor_done(&d[--i]);
            free(d);
            return err_wrap(e, "%s", key);
        }
    }
    *ret = d;
    *ret_n = n;
    return 0;
}

/* What an object is by its members; a document must not be two things. */
static int kind_of_document(const json_t *j, enum image_kind *ret, struct err *e)
{
    bool manifests = json_object_get(j, "manifests");
    bool layers = json_object_get(j, "layers") || json_object_get(j, "config");

    if (json_object_get(j, "fsLayers"))
        return err_set(e, ERR_INVALID_ARGUMENT, "schema 1 manifests are not supported");
    if (manifests && layers)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "the document is ambiguous: it has \"manifests\" together with \"layers\" "
                       "or \"config\"");
    *ret = manifests ? IMAGE_INDEX : layers ? IMAGE_MANIFEST : IMAGE_UNKNOWN;
    return 0;
}

/* Common to both: schemaVersion, mediaType, and that the document is of the wanted kind. */
static int check_document(const json_t *j, enum image_kind wanted, char **ret_media_type,
                          struct err *e)
{
    _free_ char *media_type = NULL;
    int64_t version = 2;
    enum image_kind kind;
    int r;

    if ((r = document_string(j, "mediaType", &media_type, e)) < 0 ||
        (r = document_int(j, "schemaVersion", &version, e)) < 0 ||
        (r = kind_of_document(j, &kind, e)) < 0)
        return r;
    if (version != 2)
        return err_set(e, ERR_INVALID_ARGUMENT, "schemaVersion is %lld, not 2", (long long)version);
    if (kind == IMAGE_UNKNOWN && wanted == IMAGE_INDEX)
        kind = image_kind_of(media_type); /* an index may have lost an empty list */
    if (kind != wanted)
        return err_set(e, ERR_INVALID_ARGUMENT, "the document is no %s", image_kind_name(wanted));
    if (!str_empty(media_type) && image_kind_of(media_type) != wanted) {
        _free_ char *quoted = str_quote(media_type);
        return err_set(e, ERR_INVALID_ARGUMENT, "mediaType %s does not fit the %s it is in",
                       str_or_empty(quoted), image_kind_name(wanted));
    }
    *ret_media_type = TAKE(media_type);
    return 0;
}

int image_detect_kind(const void *bytes, size_t n, enum image_kind *ret, struct err *e)
{
    _json_ json_t *j = NULL;
    _free_ char *media_type = NULL;
    enum image_kind kind;

    int r = document_parse(bytes, n, IMAGE_MANIFEST_MAX, "image document", &j, e);
    if (r < 0 || (r = kind_of_document(j, &kind, e)) < 0)
        return r;
    if (kind == IMAGE_UNKNOWN)
        kind = IMAGE_INDEX;
    r = check_document(j, kind, &media_type, e);
    if (r < 0)
        return err_wrap(e, "image document");
    *ret = kind;
    return 0;
}

void image_index_done(struct image_index *x)
{
    for (size_t i = 0; i < x->n_manifests; i++)
        descriptor_done(&x->manifests[i]);
    free(x->manifests);
    free(x->media_type);
    strmap_done(&x->annotations);
    *x = (struct image_index){0};
}

int image_index_parse(const void *bytes, size_t n, struct image_index *ret, struct err *e)
{
    _json_ json_t *j = NULL;
    _cleanup_(image_index_done) struct image_index x = {0};

    int r = document_parse(bytes, n, IMAGE_MANIFEST_MAX, "image index", &j, e);
    if (r < 0)
        return r;
    if ((r = check_document(j, IMAGE_INDEX, &x.media_type, e)) < 0 ||
        (r = parse_descriptors(j, "manifests", IMAGE_MANIFESTS_MAX, &x.manifests, &x.n_manifests,
                               e)) < 0 ||
        (r = document_strmap(j, "annotations", &x.annotations, e)) < 0)
        return err_wrap(e, "image index");
    *ret = x;
    x = (struct image_index){0};
    return 0;
}

const struct descriptor *image_index_choose(const struct image_index *x,
                                            const struct platform *want)
{
    const struct descriptor *best = NULL;
    const struct descriptor *unnamed = NULL;
    int best_match = 0;

    for (size_t i = 0; i < x->n_manifests; i++) {
        const struct descriptor *d = &x->manifests[i];
        if (!d->has_platform) {
            if (!unnamed)
                unnamed = d;
            continue;
        }
        int match = platform_match(want, &d->platform);
        if (match > best_match) {
            best_match = match;
            best = d;
        }
    }
    return best ? best : unnamed;
}

void image_manifest_done(struct image_manifest *m)
{
    for (size_t i = 0; i < m->n_layers; i++)
        descriptor_done(&m->layers[i]);
    free(m->layers);
    free(m->media_type);
    free(m->artifact_type);
    descriptor_done(&m->config);
    strmap_done(&m->annotations);
    *m = (struct image_manifest){0};
}

int image_manifest_parse(const void *bytes, size_t n, struct image_manifest *ret, struct err *e)
{
    _json_ json_t *j = NULL;
    _cleanup_(image_manifest_done) struct image_manifest m = {0};

    int r = document_parse(bytes, n, IMAGE_MANIFEST_MAX, "image manifest", &j, e);
    if (r < 0)
        return r;
    if ((r = check_document(j, IMAGE_MANIFEST, &m.media_type, e)) < 0 ||
        (r = document_string(j, "artifactType", &m.artifact_type, e)) < 0 ||
        (r = document_strmap(j, "annotations", &m.annotations, e)) < 0)
        return err_wrap(e, "image manifest");
    const json_t *config = json_object_get(j, "config");
    if (!config)
        return err_set(e, ERR_INVALID_ARGUMENT, "image manifest: it has no \"config\"");
    if (parse_descriptor(config, &m.config, e) < 0)
        return err_wrap(e, "image manifest: config");
    if (parse_descriptors(j, "layers", IMAGE_LAYERS_MAX, &m.layers, &m.n_layers, e) < 0)
        return err_wrap(e, "image manifest");
    *ret = m;
    m = (struct image_manifest){0};
    return 0;
}

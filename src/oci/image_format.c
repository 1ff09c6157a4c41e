/* SPDX-License-Identifier: Apache-2.0 */
/* Writing indexes and manifests. Members come in the order of the specification's examples, so the
 * same value always gives the same bytes and digest. */
#include "base/str.h"
#include "oci/document.h"
#include "oci/image.h"

/* Each takes the reference to v, also when it fails; the first failure makes `ok` false for good.
 */
static void set_json(json_t *object, const char *key, json_t *v, bool *ok)
{
    if (json_object_set_new(object, key, v) < 0)
        *ok = false;
}

static void set_string(json_t *object, const char *key, const char *s, bool *ok)
{
    if (!str_empty(s))
        set_json(object, key, json_string(s), ok);
}

static void set_strmap(json_t *object, const char *key, const struct strmap *m, bool *ok)
{
    if (m->n == 0)
        return;
    json_t *members = json_object();
    STRMAP_FOREACH (e, m)
        set_json(members, e->key, json_string(e->value), ok);
    set_json(object, key, members, ok);
}

static json_t *format_descriptor(const struct descriptor *d, bool *ok)
{
    json_t *j = json_object();

    set_string(j, "mediaType", d->media_type, ok);
    set_string(j, "digest", d->digest, ok);
    set_json(j, "size", json_integer(d->size), ok);
    if (d->urls) {
        json_t *urls = json_array();
        for (char **u = d->urls; *u; u++)
            if (json_array_append_new(urls, json_string(*u)) < 0)
                *ok = false;
        set_json(j, "urls", urls, ok);
    }
    set_strmap(j, "annotations", &d->annotations, ok);
    if (d->has_platform) {
        json_t *p = json_object();
        set_string(p, "architecture", d->platform.architecture, ok);
        set_string(p, "os", d->platform.os, ok);
        set_string(p, "os.version", d->platform.os_version, ok);
        set_string(p, "variant", d->platform.variant, ok);
        set_json(j, "platform", p, ok);
    }
    set_string(j, "artifactType", d->artifact_type, ok);
    return j;
}

static json_t *format_descriptors(const struct descriptor *d, size_t n, bool *ok)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(list, format_descriptor(&d[i], ok)) < 0)
            *ok = false;
    return list;
}

static int dump(const json_t *j, bool ok, char **ret, struct err *e)
{
    char *text = ok ? json_dumps(j, JSON_COMPACT) : NULL;
    if (!text)
        return err_oom(e);
    *ret = text;
    return 0;
}

int image_index_format(const struct image_index *x, char **ret, struct err *e)
{
    _json_ json_t *j = json_object();
    bool ok = j;

    set_json(j, "schemaVersion", json_integer(2), &ok);
    set_string(j, "mediaType", x->media_type ? x->media_type : MEDIA_TYPE_OCI_INDEX, &ok);
    set_json(j, "manifests", format_descriptors(x->manifests, x->n_manifests, &ok), &ok);
    set_strmap(j, "annotations", &x->annotations, &ok);
    return dump(j, ok, ret, e);
}

int image_manifest_format(const struct image_manifest *m, char **ret, struct err *e)
{
    _json_ json_t *j = json_object();
    bool ok = j;

    set_json(j, "schemaVersion", json_integer(2), &ok);
    set_string(j, "mediaType", m->media_type ? m->media_type : MEDIA_TYPE_OCI_MANIFEST, &ok);
    set_string(j, "artifactType", m->artifact_type, &ok);
    set_json(j, "config", format_descriptor(&m->config, &ok), &ok);
    set_json(j, "layers", format_descriptors(m->layers, m->n_layers, &ok), &ok);
    set_strmap(j, "annotations", &m->annotations, &ok);
    return dump(j, ok, ret, e);
}

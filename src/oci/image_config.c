/* SPDX-License-Identifier: Apache-2.0 */
/* The image configuration, Docker's archive manifest, and the layout file. */
#include "base/str.h"
#include "oci/digest.h"
#include "oci/document.h"
#include "oci/image.h"

void image_config_done(struct image_config *c)
{
    free(c->created);
    free(c->author);
    free(c->user);
    free(c->working_dir);
    free(c->stop_signal);
    strv_free(c->env);
    strv_free(c->entrypoint);
    strv_free(c->cmd);
    strv_free(c->volumes);
    strv_free(c->exposed_ports);
    strv_free(c->diff_ids);
    strmap_done(&c->labels);
    *c = (struct image_config){0};
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The keys of an object, sorted. */
static int parse_keys(const json_t *j, const char *key, char ***ret, struct err *e)
{
    json_t *members = NULL;
    int r = document_object(j, key, &members, e);
    if (r < 0 || !members)
        return r;
    size_t n = json_object_size(members);
    if (n > IMAGE_STRINGS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "member \"%s\" has %zu entries, more than %d", key,
                       n, IMAGE_STRINGS_MAX);

    _cleanup_(strv_freep) char **v = calloc(n + 1, sizeof(*v));
    if (!v)
        return err_oom(e);
    size_t i = 0;
    const char *name;
    json_t *ignored;
    json_object_foreach(members, name, ignored)
    {
        v[i] = strdup(name);
        if (!v[i++])
            return err_oom(e);
    }
    qsort(v, n, sizeof(*v), compare_strings);
    *ret = TAKE(v);
    return 0;
}

static int parse_process(const json_t *j, struct image_config *c, struct err *e)
{
    json_t *p = NULL;
    int r = document_object(j, "config", &p, e);
    if (r < 0 || !p)
        return r;
    if ((r = document_string(p, "User", &c->user, e)) < 0 ||
        (r = document_string(p, "WorkingDir", &c->working_dir, e)) < 0 ||
        (r = document_string(p, "StopSignal", &c->stop_signal, e)) < 0 ||
        (r = document_strv(p, "Env", IMAGE_STRINGS_MAX, &c->env, e)) < 0 ||
        (r = document_strv(p, "Entrypoint", IMAGE_STRINGS_MAX, &c->entrypoint, e)) < 0 ||
        (r = document_strv(p, "Cmd", IMAGE_STRINGS_MAX, &c->cmd, e)) < 0 ||
        (r = parse_keys(p, "Volumes", &c->volumes, e)) < 0 ||
        (r = parse_keys(p, "ExposedPorts", &c->exposed_ports, e)) < 0)
        return r;
    return document_strmap(p, "Labels", &c->labels, e);
}

static int parse_rootfs(const json_t *j, struct image_config *c, struct err *e)
{
    json_t *rootfs = NULL;
    _free_ char *type = NULL;

    int r = document_object(j, "rootfs", &rootfs, e);
    if (r < 0 || !rootfs)
        return r;
    if ((r = document_string(rootfs, "type", &type, e)) < 0 ||
        (r = document_strv(rootfs, "diff_ids", IMAGE_LAYERS_MAX, &c->diff_ids, e)) < 0)
        return r;
    if (type && !str_eq(type, "layers"))
        return err_set(e, ERR_INVALID_ARGUMENT, "rootfs.type is not \"layers\"");
    c->n_diff_ids = strv_len(c->diff_ids);
    for (size_t i = 0; i < c->n_diff_ids; i++)
        if (!digest_is_valid(c->diff_ids[i]))
            return err_set(e, ERR_INVALID_ARGUMENT, "rootfs.diff_ids[%zu]: %s", i,
                           digest_problem(c->diff_ids[i]));
    return 0;
}

static int parse_config_platform(const json_t *j, struct image_config *c, struct err *e)
{
    _free_ char *os = NULL;
    _free_ char *architecture = NULL;
    _free_ char *variant = NULL;
    int r;

    if ((r = document_string(j, "os", &os, e)) < 0 ||
        (r = document_string(j, "architecture", &architecture, e)) < 0 ||
        (r = document_string(j, "variant", &variant, e)) < 0)
        return r;
    if (platform_set(&c->platform, os, architecture, variant) < 0)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "\"os\", \"architecture\" or \"variant\" is no "
                       "platform name");
    return 0;
}

int image_config_parse(const void *bytes, size_t n, struct image_config *ret, struct err *e)
{
    _json_ json_t *j = NULL;
    _cleanup_(image_config_done) struct image_config c = {0};
    json_t *history = NULL;

    int r = document_parse(bytes, n, IMAGE_CONFIG_MAX, "image config", &j, e);
    if (r < 0)
        return r;
    if ((r = parse_config_platform(j, &c, e)) < 0 ||
        (r = document_string(j, "created", &c.created, e)) < 0 ||
        (r = document_string(j, "author", &c.author, e)) < 0 ||
        (r = document_array(j, "history", &history, e)) < 0 || (r = parse_process(j, &c, e)) < 0 ||
        (r = parse_rootfs(j, &c, e)) < 0)
        return err_wrap(e, "image config");
    c.n_history = json_array_size(history);
    *ret = c;
    c = (struct image_config){0};
    return 0;
}

void docker_archive_done(struct docker_archive *a)
{
    for (size_t i = 0; i < a->n_images; i++) {
        free(a->images[i].config);
        strv_free(a->images[i].repo_tags);
        strv_free(a->images[i].layers);
    }
    free(a->images);
    *a = (struct docker_archive){0};
}

static int parse_archive_image(const json_t *j, struct docker_archive_image *ret, struct err *e)
{
    int r;

    if (!json_is_object(j))
        return err_set(e, ERR_INVALID_ARGUMENT, "an element is not an object");
    if ((r = document_string(j, "Config", &ret->config, e)) < 0 ||
        (r = document_strv(j, "RepoTags", IMAGE_STRINGS_MAX, &ret->repo_tags, e)) < 0 ||
        (r = document_strv(j, "Layers", IMAGE_LAYERS_MAX, &ret->layers, e)) < 0)
        return r;
    if (str_empty(ret->config))
        return err_set(e, ERR_INVALID_ARGUMENT, "an image has no \"Config\"");
    return 0;
}

int docker_archive_parse(const void *bytes, size_t n, struct docker_archive *ret, struct err *e)
{
    _json_ json_t *j = NULL;
    _cleanup_(docker_archive_done) struct docker_archive a = {0};

    int r = document_parse_array(bytes, n, IMAGE_MANIFEST_MAX, "manifest.json", &j, e);
    if (r < 0)
        return r;
    size_t n_images = json_array_size(j);
    if (n_images > IMAGE_MANIFESTS_MAX)
        return err_set(e, ERR_INVALID_ARGUMENT, "manifest.json: it names %zu images, more than %d",
                       n_images, IMAGE_MANIFESTS_MAX);
    a.images = calloc(n_images ? n_images : 1, sizeof(*a.images));
    if (!a.images)
        return err_oom(e);
    a.n_images = n_images;
    for (size_t i = 0; i < n_images; i++)
        if (parse_archive_image(json_array_get(j, i), &a.images[i], e) < 0)
            return err_wrap(e, "manifest.json");
    *ret = a;
    a = (struct docker_archive){0};
    return 0;
}

int image_layout_check(const void *bytes, size_t n, struct err *e)
{
    _json_ json_t *j = NULL;
    _free_ char *version = NULL;

    int r = document_parse(bytes, n, IMAGE_MANIFEST_MAX, "oci-layout", &j, e);
    if (r < 0 || (r = document_string(j, "imageLayoutVersion", &version, e)) < 0)
        return r;
    if (!str_after_prefix(str_or_empty(version), "1."))
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "oci-layout: imageLayoutVersion is not 1.x but another one");
    return 0;
}

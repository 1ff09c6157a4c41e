/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image.h"

#include "base/str.h"
#include "cli/rpc.h"
#include "google/protobuf/field_mask.pb-c.h"
#include "oci/digest.h"
#include "oci/reference.h"
#include "oci/sha256.h"
#include "services.content.v1.pb-c.h"

void image_done(struct image *i)
{
    free(i->name);
    free(i->target_digest);
    free(i->manifest_digest);
    free(i->chain_id);
    image_manifest_done(&i->manifest);
    image_config_done(&i->config);
    *i = (struct image){};
}

const char *image_snapshotter(const char *flag)
{
    const char *env = getenv("CONTAINERD_SNAPSHOTTER");

    if (!str_empty(flag))
        return flag;
    return str_empty(env) ? IMAGE_DEFAULT_SNAPSHOTTER : env;
}

static int get_exact(struct cli *cli, const char *name, Pb__Images__GetImageResponse **ret,
                     struct err *e)
{
    Pb__Images__GetImageRequest request = PB__IMAGES__GET_IMAGE_REQUEST__INIT;

    request.name = (char *)name;
    return RPC(cli, "images.v1.Images/Get", &request, pb__images__get_image_response, ret, e);
}

int image_get(struct cli *cli, const char *name, Pb__Images__GetImageResponse **ret, struct err *e)
{
    struct err invalid = ERR_INIT;
    _free_ char *full = NULL;
    int r;

    if (reference_normalise(name, &full, &invalid) < 0 && !reference_name_is_storable(name)) {
        *e = invalid;
        return ERR_RETURN;
    }
    r = get_exact(cli, full ? full : name, ret, e);
    if (r < 0 && e->code == ERR_NOT_FOUND && full && !str_eq(full, name))
        r = get_exact(cli, name, ret, e);
    if (r < 0 && e->code == ERR_NOT_FOUND)
        return err_set(
            e, ERR_NOT_FOUND,
            "no image %s in namespace %s; \"wherry images\" lists what is there, \"wherry "
            "import FILE\" takes an archive in",
            name, cli->namespace_);
    if (r == 0 && (!(*ret)->image || !(*ret)->image->target)) {
        pb_free(&(*ret)->base);
        *ret = NULL;
        return err_set(e, ERR_INTERNAL, "the daemon's answer about image %s names no target", name);
    }
    return r;
}

struct reading {
    struct buf *out;
    int r;
};

static void on_chunk(void *userdata, ProtobufCMessage *m)
{
    struct reading *reading = userdata;
    const Pb__Content__ReadContentResponse *chunk = (const Pb__Content__ReadContentResponse *)m;

    if (reading->r == 0)
        reading->r = buf_append(reading->out, chunk->data.data, chunk->data.len);
    pb_free(m);
}

int content_read(struct cli *cli, const char *digest, size_t max, struct buf *ret, struct err *e)
{
    Pb__Content__ReadContentRequest request = PB__CONTENT__READ_CONTENT_REQUEST__INIT;
    struct reading reading = {.out = ret};
    _cleanup_(rpc_done) struct rpc rpc = {.message = on_chunk, .userdata = &reading};
    int r;

    buf_init(ret, max);
    request.digest = (char *)digest;
    r = rpc_start(cli, &rpc, "content.v1.Content/Read", &request.base,
                  &pb__content__read_content_response__descriptor, e);
    if (r == 0)
        r = rpc_wait(cli, &rpc, e);
    if (r == 0 && reading.r == -ENOBUFS)
        r = err_set(e, ERR_RESOURCE_EXHAUSTED, "content %s is larger than %zu bytes", digest, max);
    else if (r == 0 && reading.r < 0)
        r = err_oom(e);
    if (r < 0)
        buf_done(ret);
    return r;
}

int content_label(struct cli *cli, const char *digest, const char *key, const char *value,
                  struct err *e)
{
    Pb__Content__UpdateRequest request = PB__CONTENT__UPDATE_REQUEST__INIT;
    Pb__Content__Info info = PB__CONTENT__INFO__INIT;
    Pb__Content__Info__LabelsEntry label = PB__CONTENT__INFO__LABELS_ENTRY__INIT;
    Pb__Content__Info__LabelsEntry *labels[] = {&label};
    Google__Protobuf__FieldMask mask = GOOGLE__PROTOBUF__FIELD_MASK__INIT;
    _free_ char *path = str_printf("labels.%s", key);

    if (!path)
        return err_oom(e);
    label.key = (char *)key;
    label.value = (char *)value;
    info.digest = (char *)digest;
    info.labels = labels;
    info.n_labels = 1;
    mask.paths = &path;
    mask.n_paths = 1;
    request.info = &info;
    request.update_mask = &mask;
    return RPC(cli, "content.v1.Content/Update", &request, pb__content__update_response, NULL, e);
}

int image_chain_next(char **chain, const char *diff_id, struct err *e)
{
    _free_ char *text = NULL;
    uint8_t hash[SHA256_SIZE];
    char digest[DIGEST_STR_MAX];

    if (str_empty(*chain)) {
        free(*chain);
        *chain = strdup(diff_id);
        return *chain ? 0 : err_oom(e);
    }
    text = str_printf("%s %s", *chain, diff_id);
    if (!text)
        return err_oom(e);
    sha256(text, strlen(text), hash);
    digest_format(DIGEST_SHA256, hash, digest);
    free(*chain);
    *chain = strdup(digest);
    return *chain ? 0 : err_oom(e);
}

static int load_config(struct cli *cli, struct image *i, struct err *e)
{
    _cleanup_(buf_done) struct buf bytes = {};
    int r = content_read(cli, i->manifest.config.digest, IMAGE_CONFIG_MAX, &bytes, e);

    if (r == 0)
        r = image_config_parse(buf_head(&bytes), bytes.len, &i->config, e);
    if (r < 0)
        return err_wrap(e, "image %s", i->name);
    if (i->config.n_diff_ids != i->manifest.n_layers)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "image %s: its manifest has %zu layers, its configuration %zu", i->name,
                       i->manifest.n_layers, i->config.n_diff_ids);
    for (size_t n = 0; n < i->config.n_diff_ids && r == 0; n++)
        r = image_chain_next(&i->chain_id, i->config.diff_ids[n], e);
    return r;
}

/* Reads the manifest, through at most a few indexes, one choosing among the next. */
static int load_manifest(struct cli *cli, struct image *i, const char *digest, struct err *e)
{
    _free_ char *at = strdup(digest);
    struct platform host;

    platform_host(&host);
    for (unsigned depth = 0; at && depth < 4; depth++) {
        _cleanup_(buf_done) struct buf bytes = {};
        _cleanup_(image_index_done) struct image_index index = {};
        const struct descriptor *chosen;
        enum image_kind kind = IMAGE_UNKNOWN;
        int r = content_read(cli, at, IMAGE_MANIFEST_MAX, &bytes, e);

        if (r == 0)
            r = image_detect_kind(buf_head(&bytes), bytes.len, &kind, e);
        if (r == 0 && kind == IMAGE_MANIFEST) {
            i->manifest_digest = TAKE(at);
            return image_manifest_parse(buf_head(&bytes), bytes.len, &i->manifest, e);
        }
        if (r == 0)
            r = image_index_parse(buf_head(&bytes), bytes.len, &index, e);
        if (r < 0)
            return r;
        chosen = image_index_choose(&index, &host);
        if (!chosen) {
            char name[PLATFORM_STR_MAX];
            platform_format(&host, name);
            return err_set(e, ERR_NOT_FOUND, "it has nothing for this machine's platform, %s",
                           name);
        }
        free(at);
        at = strdup(chosen->digest);
    }
    return at ? err_set(e, ERR_INVALID_ARGUMENT, "its indexes are nested too deeply") : err_oom(e);
}

int image_load(struct cli *cli, const Pb__Images__Image *image, struct image *ret, struct err *e)
{
    _cleanup_(image_done) struct image i = {};
    int r;

    i.name = strdup(image->name);
    i.target_digest = strdup(image->target->digest);
    i.chain_id = strdup("");
    if (!i.name || !i.target_digest || !i.chain_id)
        return err_oom(e);
    r = load_manifest(cli, &i, i.target_digest, e);
    if (r < 0)
        return err_wrap(e, "image %s", i.name);
    r = load_config(cli, &i, e);
    if (r < 0)
        return r;
    *ret = i;
    i = (struct image){};
    return 0;
}

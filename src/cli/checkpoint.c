/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/checkpoint.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/identifier.h"
#include "base/str.h"
#include "cli/content_writer.h"
#include "cli/image.h"
#include "google/protobuf/empty.pb-c.h"
#include "services.content.v1.pb-c.h"

#define INDEX_MAX (1u << 20)
/* CRIU writes it into every directory of images. */
#define INVENTORY "inventory.img"
#define MEDIA_TYPE_IMAGES "application/vnd.containerd.container.criu.checkpoint.criu.tar"

void checkpoint_list_done(struct checkpoint_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->checkpoints[i].container);
        free(l->checkpoints[i].name);
        free(l->checkpoints[i].digest);
    }
    free(l->checkpoints);
    *l = (struct checkpoint_list){};
}

static int add(struct checkpoint_list *l, const char *container, const char *name,
               const char *digest, struct timespec at)
{
    struct checkpoint *bigger = reallocarray(l->checkpoints, l->n + 1, sizeof(*l->checkpoints));
    if (!bigger)
        return -ENOMEM;
    l->checkpoints = bigger;
    struct checkpoint *c = &bigger[l->n++];
    *c = (struct checkpoint){
        .container = container ? strdup(container) : NULL,
        .name = strdup(name),
        .digest = digest ? strdup(digest) : NULL,
        .created_at = at,
    };
    return c->name && (!container || c->container) && (!digest || c->digest) ? 0 : -ENOMEM;
}

/* A listing under way: messages come while the loop turns. */
struct listing {
    struct checkpoint_list list;
    bool failed;
};

static void on_contents(void *userdata, ProtobufCMessage *m)
{
    struct listing *l = userdata;
    const Pb__Content__ListContentResponse *reply = (const Pb__Content__ListContentResponse *)m;

    for (size_t i = 0; i < reply->n_info; i++) {
        const Pb__Content__Info *info = reply->info[i];
        const char *container = NULL, *name = NULL;

        for (size_t k = 0; k < info->n_labels; k++) {
            if (str_eq(info->labels[k]->key, LABEL_CHECKPOINT_CONTAINER))
                container = info->labels[k]->value;
            else if (str_eq(info->labels[k]->key, LABEL_CHECKPOINT_NAME))
                name = info->labels[k]->value;
        }
        if (container && name &&
            add(&l->list, container, name, info->digest, pb_timestamp_get(info->created_at)) < 0)
            l->failed = true;
    }
    pb_free(m);
}

int checkpoint_list(struct cli *cli, const char *container, struct checkpoint_list *ret,
                    struct err *e)
{
    Pb__Content__ListContentRequest request = PB__CONTENT__LIST_CONTENT_REQUEST__INIT;
    struct listing l = {};
    _cleanup_(rpc_done) struct rpc rpc = {.message = on_contents, .userdata = &l};
    _free_ char *filter =
        container ? str_printf("labels.\"%s\"==\"%s\"", LABEL_CHECKPOINT_CONTAINER, container)
                  : str_printf("labels.\"%s\"", LABEL_CHECKPOINT_CONTAINER);

    if (!filter)
        return err_oom(e);
    request.filters = &filter;
    request.n_filters = 1;
    int r = rpc_start(cli, &rpc, "content.v1.Content/List", &request.base,
                      &pb__content__list_content_response__descriptor, e);
    if (r == 0)
        r = rpc_wait(cli, &rpc, e);
    if (r == 0 && l.failed)
        r = err_oom(e);
    if (r < 0)
        checkpoint_list_done(&l.list);
    else
        *ret = l.list;
    return r;
}

int checkpoint_find(struct cli *cli, const char *container, const char *name, char **ret,
                    struct err *e)
{
    _cleanup_(checkpoint_list_done) struct checkpoint_list list = {};

    /* Also what cannot be in a filter's quotes cannot be a container's name. */
    int r = identifier_validate(container, e);
    if (r == 0)
        r = checkpoint_list(cli, container, &list, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < list.n; i++) {
        if (!str_eq(list.checkpoints[i].name, name))
            continue;
        *ret = TAKE(list.checkpoints[i].digest);
        return 0;
    }
    return err_set(e, ERR_NOT_FOUND,
                   "container %s has no checkpoint %s; \"wherry checkpoint ls\" lists what is "
                   "there",
                   container, name);
}

static int label(const char *container, const char *name, const struct descriptor *parts, size_t n,
                 struct strmap *ret)
{
    char now[CLOCK_RFC3339_MAX], key[64];

    clock_rfc3339(clock_realtime(), now);
    int r = strmap_set(ret, LABEL_CHECKPOINT_CONTAINER, container);
    if (r == 0)
        r = strmap_set(ret, LABEL_CHECKPOINT_NAME, name);
    if (r == 0)
        r = strmap_set(ret, "containerd.io/gc.root", now);
    for (size_t i = 0; i < n && r == 0; i++) {
        snprintf(key, sizeof(key), "containerd.io/gc.ref.content.%zu", i);
        r = strmap_set(ret, key, parts[i].digest);
    }
    return r;
}

int checkpoint_keep(struct cli *cli, const char *container, const char *name,
                    const struct descriptor *parts, size_t n, struct err *e)
{
    struct image_index index = {.manifests = (struct descriptor *)parts, .n_manifests = n};
    _cleanup_(strmap_done) struct strmap labels = {};
    char now[CLOCK_RFC3339_MAX], digest[DIGEST_STR_MAX];
    _free_ char *text = NULL, *ref = str_printf("checkpoint-index-%s-%s", container, name);

    /* Two of the same content are two blobs. */
    clock_rfc3339(clock_realtime(), now);
    bool ok = ref && strmap_set(&index.annotations, LABEL_CHECKPOINT_CONTAINER, container) == 0 &&
              strmap_set(&index.annotations, LABEL_CHECKPOINT_NAME, name) == 0 &&
              strmap_set(&index.annotations, "org.opencontainers.image.created", now) == 0 &&
              label(container, name, parts, n, &labels) == 0;
    int r = ok ? image_index_format(&index, &text, e) : err_oom(e);
    strmap_done(&index.annotations);
    if (r == 0)
        r = content_write_bytes(cli, ref, text, strlen(text), digest, e);
    return r < 0 ? r : content_set_labels(cli, digest, &labels, e);
}

int checkpoint_images(struct cli *cli, const char *digest, struct descriptor *ret, struct err *e)
{
    _cleanup_(buf_done) struct buf bytes = {};
    _cleanup_(image_index_done) struct image_index index = {};

    int r = content_read(cli, digest, INDEX_MAX, &bytes, e);
    if (r == 0)
        r = image_index_parse(buf_head(&bytes), bytes.len, &index, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < index.n_manifests; i++)
        if (str_eq(index.manifests[i].media_type, MEDIA_TYPE_IMAGES))
            return descriptor_copy(ret, &index.manifests[i]) < 0 ? err_oom(e) : 0;
    return err_set(e, ERR_FAILED_PRECONDITION, "checkpoint %s holds no images of CRIU", digest);
}

int checkpoint_remove(struct cli *cli, const char *digest, struct err *e)
{
    Pb__Content__DeleteContentRequest request = PB__CONTENT__DELETE_CONTENT_REQUEST__INIT;

    request.digest = (char *)digest;
    int r = RPC_EMPTY(cli, "content.v1.Content/Delete", &request, e);
    return r < 0 && e->code == ERR_NOT_FOUND ? 0 : r;
}

int checkpoint_remove_all(struct cli *cli, const char *container, struct err *e)
{
    _cleanup_(checkpoint_list_done) struct checkpoint_list list = {};

    int r = checkpoint_list(cli, container, &list, e);
    for (size_t i = 0; r == 0 && i < list.n; i++)
        r = checkpoint_remove(cli, list.checkpoints[i].digest, e);
    return r < 0 ? err_wrap(e, "remove the checkpoints of container %s", container) : 0;
}

int checkpoint_path(const char *dir, const char *name, char **ret, struct err *e)
{
    char cwd[PATH_MAX];

    if (identifier_validate(name, e) < 0)
        return err_wrap(e, "name of the checkpoint");
    if (dir[0] != '/' && !getcwd(cwd, sizeof(cwd)))
        return err_errno(e, -errno, "find the current directory");
    *ret = dir[0] == '/' ? str_printf("%s/%s", dir, name) : str_printf("%s/%s/%s", cwd, dir, name);
    return *ret ? 0 : err_oom(e);
}

bool checkpoint_is_there(const char *path)
{
    _free_ char *inventory = fs_join(path, INVENTORY);

    return inventory && fs_exists(AT_FDCWD, inventory);
}

int checkpoint_list_dir(const char *dir, struct checkpoint_list *ret, struct err *e)
{
    struct checkpoint_list list = {};
    struct dirent *entry;
    DIR *d = opendir(dir);
    int r = 0;

    if (!d)
        return err_errno(e, -errno, "open directory %s", dir);
    while (r == 0 && (entry = readdir(d))) {
        _free_ char *path = fs_join(dir, entry->d_name);
        struct stat st;

        if (!path)
            r = -ENOMEM;
        else if (entry->d_name[0] != '.' && checkpoint_is_there(path) && stat(path, &st) == 0)
            r = add(&list, NULL, entry->d_name, NULL, st.st_mtim);
    }
    closedir(d);
    if (r < 0) {
        checkpoint_list_done(&list);
        return err_oom(e);
    }
    *ret = list;
    return 0;
}

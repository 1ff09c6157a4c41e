/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/random.h>

#include "base/str.h"
#include "cli/image.h"
#include "cli/rpc.h"
#include "services.diff.v1.pb-c.h"
#include "services.snapshots.v1.pb-c.h"

/* 1: there, 0: not, negative: error. */
static int snapshot_exists(struct cli *cli, const char *snapshotter, const char *key, struct err *e)
{
    Pb__Snapshots__StatSnapshotRequest request = PB__SNAPSHOTS__STAT_SNAPSHOT_REQUEST__INIT;
    int r;

    request.snapshotter = (char *)snapshotter;
    request.key = (char *)key;
    r = RPC(cli, "snapshots.v1.Snapshots/Stat", &request, pb__snapshots__stat_snapshot_response,
            NULL, e);
    if (r < 0 && e->code == ERR_NOT_FOUND)
        return 0;
    return r < 0 ? r : 1;
}

static void snapshot_remove(struct cli *cli, const char *snapshotter, const char *key)
{
    Pb__Snapshots__RemoveSnapshotRequest request = PB__SNAPSHOTS__REMOVE_SNAPSHOT_REQUEST__INIT;
    struct err ignored = ERR_INIT;

    request.snapshotter = (char *)snapshotter;
    request.key = (char *)key;
    cli->finishing = true;
    RPC_EMPTY(cli, "snapshots.v1.Snapshots/Remove", &request, &ignored);
    cli->finishing = false;
}

static int apply(struct cli *cli, const struct descriptor *layer, const char *diff_id,
                 Pb__Types__Mount **mounts, size_t n_mounts, struct err *e)
{
    Pb__Diff__ApplyRequest request = PB__DIFF__APPLY_REQUEST__INIT;
    Pb__Types__Descriptor diff = PB__TYPES__DESCRIPTOR__INIT;
    _reply_ Pb__Diff__ApplyResponse *reply = NULL;
    int r;

    diff.media_type = layer->media_type;
    diff.digest = layer->digest;
    diff.size = layer->size;
    request.diff = &diff;
    request.mounts = mounts;
    request.n_mounts = n_mounts;
    r = RPC(cli, "diff.v1.Diff/Apply", &request, pb__diff__apply_response, &reply, e);
    if (r < 0)
        return r;
    if (!reply->applied || !str_eq(reply->applied->digest, diff_id))
        return err_set(e, ERR_FAILED_PRECONDITION, "its content has digest %s, the image says %s",
                       reply->applied ? reply->applied->digest : "(none)", diff_id);
    return 0;
}

static int commit(struct cli *cli, const char *snapshotter, const char *key, const char *name,
                  struct err *e)
{
    Pb__Snapshots__CommitSnapshotRequest request = PB__SNAPSHOTS__COMMIT_SNAPSHOT_REQUEST__INIT;

    request.snapshotter = (char *)snapshotter;
    request.key = (char *)key;
    request.name = (char *)name;
    return RPC_EMPTY(cli, "snapshots.v1.Snapshots/Commit", &request, e);
}

static int unpack_layer(struct cli *cli, const struct descriptor *layer, const char *diff_id,
                        const char *snapshotter, const char *parent, const char *chain,
                        struct err *e)
{
    Pb__Snapshots__PrepareSnapshotRequest request = PB__SNAPSHOTS__PREPARE_SNAPSHOT_REQUEST__INIT;
    _reply_ Pb__Snapshots__PrepareSnapshotResponse *reply = NULL;
    _free_ char *key = NULL;
    uint64_t random = 0;
    int r;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(e, -errno, "make a random name");
    key = str_printf("extract-%016llx %s", (unsigned long long)random, chain);
    if (!key)
        return err_oom(e);
    request.snapshotter = (char *)snapshotter;
    request.key = key;
    request.parent = (char *)parent;
    r = RPC(cli, "snapshots.v1.Snapshots/Prepare", &request,
            pb__snapshots__prepare_snapshot_response, &reply, e);
    if (r < 0)
        return r;
    r = apply(cli, layer, diff_id, reply->mounts, reply->n_mounts, e);
    if (r == 0) {
        r = commit(cli, snapshotter, key, chain, e);
        if (r == 0)
            return content_label(cli, layer->digest, "containerd.io/uncompressed", diff_id, e);
    }
    snapshot_remove(cli, snapshotter, key);
    /* Somebody else unpacked the same layer meanwhile. */
    return r < 0 && e->code == ERR_ALREADY_EXISTS ? 0 : r;
}

int image_unpack(struct cli *cli, const struct image *i, const char *snapshotter, struct err *e)
{
    _free_ char *label = str_printf("containerd.io/gc.ref.snapshot.%s", snapshotter);
    _free_ char *parent = strdup("");
    int r = 0;

    if (!label || !parent)
        return err_oom(e);
    for (size_t n = 0; n < i->manifest.n_layers; n++) {
        const struct descriptor *layer = &i->manifest.layers[n];
        _free_ char *chain = strdup(parent);

        if (!chain)
            return err_oom(e);
        r = image_chain_next(&chain, i->config.diff_ids[n], e);
        if (r == 0)
            r = snapshot_exists(cli, snapshotter, chain, e);
        if (r == 0)
            r = unpack_layer(cli, layer, i->config.diff_ids[n], snapshotter, parent, chain, e);
        if (r < 0)
            return err_wrap(e, "unpack layer %s of image %s", layer->digest, i->name);
        free(parent);
        parent = TAKE(chain);
    }
    if (i->manifest.n_layers == 0)
        return 0;
    return content_label(cli, i->manifest.config.digest, label, i->chain_id, e);
}

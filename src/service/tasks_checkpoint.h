/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks.Checkpoint, and the half of Tasks.Create that restores.
 *
 * A checkpoint is the directory of images that CRIU writes. With image_path in its options they go
 * where the client says, and that is all. Without, they go into a directory of the daemon's,
 * <root>/tmpcheckpoints/<random>, and from there into the content store as one tar; the
 * container's spec becomes a second blob, and the answer is the two descriptors. The directory is
 * gone when the call is answered, at the latest at the daemon's next start.
 *
 * Restoring is the same way back: the tar is unpacked into a directory of the task
 * (runtime/task_images.h), or the options name one (criu_image_path).
 */
#pragma once

#include "service/blob.h"
#include "service/context.h"
#include "services.tasks.v1.pb-c.h"

struct task_create;

#define MEDIA_TYPE_CHECKPOINT "application/vnd.containerd.container.criu.checkpoint.criu.tar"
#define MEDIA_TYPE_CHECKPOINT_SPEC "application/vnd.containerd.container.checkpoint.config.v1+proto"

/*
 * [pool] The handler. A dump may take minutes, of which no thread is held: the shim is called from
 * the loop. It is not cut short when the client goes away, because a container that was to end has
 * then ended for images that nobody keeps.
 */
void tasks_checkpoint(struct grpc_call *call, const ProtobufCMessage *request);

/* What a new task is restored from. */
struct restore {
    struct blob_place place;
    const char *digest;
    char *image_path; /* NULL: none; freed by restore_done() */
};
/* Fills create->fill_images or the checkpoint of create->request, as the request says; both borrow
 * from ret. UNKNOWN "unsupported checkpoint type ...". */
int restore_init(struct restore *ret, struct grpc_call *call, const char *ns,
                 const Pb__Tasks__CreateTaskRequest *request, struct task_create *create,
                 struct err *e);
void restore_done(struct restore *r);

/* What a daemon that was killed has left. Before the first call. */
void tasks_checkpoint_remove_old(const char *root);

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/task_images.h"

#include <fcntl.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/tasks_private.h"

#define IMAGES_NAME "images"

struct images_job {
    struct workq_job job;
    struct task *task;
};

static int fill(struct task *task, const struct task_create *create, struct err *e)
{
    _close_ int fd = -EBADF;

    int r = fs_open_private_dir(task->images_path, 0700, &fd);
    if (r < 0)
        return err_errno(e, r, "make directory %s", task->images_path);
    r = create->fill_images(create->fill_userdata, fd, e);
    if (r >= 0)
        create->request->checkpoint = task->images_path;
    return r;
}

int task_images_make(struct task *task, const struct task_create *create, struct err *e)
{
    const char *elsewhere = create->request->checkpoint;
    int r = 0;

    if (!create->fill_images && str_empty(elsewhere))
        return 0;
    task->images_path = fs_join(task->bundle.work_path, IMAGES_NAME);
    if (!task->images_path)
        return err_oom(e);
    if (create->fill_images)
        r = fill(task, create, e);
    else if (symlink(elsewhere, task->images_path) < 0)
        r = err_errno(e, -errno, "make link %s", task->images_path);
    if (r >= 0)
        atomic_store(&task->has_images, true);
    return r;
}

void task_images_find(struct task *task)
{
    if (!task->images_path)
        task->images_path = fs_join(task->bundle.work_path, IMAGES_NAME);
    atomic_store(&task->has_images, task->images_path && fs_exists(AT_FDCWD, task->images_path));
}

/* [pool] */
static void remove_images(struct workq_job *job)
{
    struct images_job *images = container_of(job, struct images_job, job);
    const struct task *task = images->task;
    int r = fs_rm_rf(AT_FDCWD, task->images_path);

    if (r < 0)
        log_warn("remove %s: %s", task->images_path, err_strerror(r));
    task_unref(images->task);
    free(images);
}

void task_images_drop(struct task *task)
{
    if (!atomic_exchange(&task->has_images, false))
        return;
    struct images_job *images = malloc(sizeof(*images));
    if (!images)
        return; /* they go with the task */
    images->task = task_ref(task);
    if (workq_submit(task->tasks->pool, &images->job, remove_images) < 0) {
        task_unref(images->task);
        free(images);
    }
}

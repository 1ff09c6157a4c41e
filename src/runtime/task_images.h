/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The images (CRIU's word for its files) that a task is restored from:
 * <work directory of the task>/images. Where the daemon has to unpack them it is a directory, 0700,
 * on disk because they are as large as the memory of the container was; where the client has them
 * in a place of its own it is a link to that. They are there from Create until the task was
 * started, at most until it was deleted: the work directory goes with the task, also when it is
 * found by the next daemon, which knows by them that such a task has no process yet.
 */
#pragma once

#include "runtime/tasks.h"

/* [not the loop] Has the directory filled by create->fill_images and names it as the request's
 * checkpoint, or makes the link to the checkpoint that is named there already. No-op for a task
 * that is not restored. After the bundle was made; on failure the bundle's removal takes what is
 * there. */
int task_images_make(struct task *task, const struct task_create *create, struct err *e);
/* [loop] Of a task found by its bundle: whether there are some. */
void task_images_find(struct task *task);
/* [any thread] The task was started: removes them (of a link, the link), on the pool. */
void task_images_drop(struct task *task);

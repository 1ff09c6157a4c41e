/* SPDX-License-Identifier: Apache-2.0 */
/* Containers and their tasks as commands use them: look up, end, remove. */
#pragma once

#include "cli/rpc.h"
#include "services.containers.v1.pb-c.h"
#include "services.tasks.v1.pb-c.h"

/* Labels of ours. The log is removed with the container; how a container ended is kept when its
 * task is deleted. */
#define LABEL_LOG_PATH "wherry/log-path"
#define LABEL_EXIT_STATUS "wherry/exit-status"
#define LABEL_EXITED_AT "wherry/exited-at"
/* What clients of containerd take over from an image. */
#define LABEL_STOP_SIGNAL "io.containerd.image.config.stop-signal"

/* ERR_NOT_FOUND names the container and how to list them. The reply is the caller's. */
int container_get(struct cli *cli, const char *id, Pb__Containers__GetContainerResponse **ret,
                  struct err *e);
/* Borrowed from c; NULL if absent. */
const char *container_label(const Pb__Containers__Container *c, const char *key);

/* Sets one label, leaves the others. */
int container_set_label(struct cli *cli, const char *id, const char *key, const char *value,
                        struct err *e);

/* 1 and the task's process, 0 when there is no task, or an error. */
int container_task(struct cli *cli, const char *id, Pb__Tasks__GetResponse **ret, struct err *e);
/* The same, but no task is an error: "container x is not running". */
int container_running(struct cli *cli, const char *id, Pb__Tasks__GetResponse **ret, struct err *e);

/* Waits for the end of the task's first process: 1 and its status, 0 when timeout_ms is over first
 * (0: no timeout). */
int container_wait(struct cli *cli, const char *id, int timeout_ms, uint32_t *ret_status,
                   struct err *e);
/* Deletes an ended task; keep_exit: writes status and time onto the container. No task is success.
 */
int container_delete_task(struct cli *cli, const char *id, bool keep_exit, struct err *e);

/* Ends what still runs, if force is given, and deletes the task. No task is success. */
int container_end_task(struct cli *cli, const char *id, bool force, struct err *e);
/* Container and snapshot, at once; NULL: leave that one alone. What is gone already is success. */
int container_remove_records(struct cli *cli, const char *id, const char *snapshotter,
                             const char *snapshot_key, struct err *e);
/*
 * Removes task, checkpoints, snapshot, container, log and left fifos. A running task is an error unless force.
 * Each part that is gone already is success.
 */
int container_remove(struct cli *cli, const Pb__Containers__Container *c, bool force,
                     struct err *e);

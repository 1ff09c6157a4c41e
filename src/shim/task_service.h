/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The task service (containerd.task.v2.Task, and the same under containerd.task.v3.Task): ttrpc
 * calls made into calls on containers and processes. The server's userdata is struct task_service.
 */
#pragma once

#include "shim/shim.h"
#include "wire/ttrpc_server.h"

struct task_service {
    struct shim *shim;
    /* Shutdown was asked for, and neither containers nor a sandbox are left. */
    void (*shutdown)(struct task_service *service);
};

#define TASK_SERVICES 2
extern const struct ttrpc_service task_services[TASK_SERVICES];

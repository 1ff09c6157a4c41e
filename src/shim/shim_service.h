/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service of runtime v1's shim, containerd.runtime.linux.shim.v1.Shim: one container, whose
 * processes are known by their ids alone (init's is the container's). It runs on the same
 * containers and processes as the task service; the daemon publishes all events but exits, and ends
 * the shim with a signal. The server's userdata is struct task_service.
 */
#pragma once

#include "shim/task_service.h"

extern const struct ttrpc_service shim_service;

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox service, containerd.runtime.sandbox.v1.Sandbox: ttrpc calls made into calls on the
 * sandbox. The server's userdata is struct task_service.
 *
 * What is relied upon by containerd: the words of the state are those of Kubernetes' CRI; Wait
 * comes back when the sandbox has been stopped; a Shutdown after a Create that failed ends the
 * shim.
 */
#pragma once

#include "shim/task_service.h"

extern const struct ttrpc_service sandbox_service;

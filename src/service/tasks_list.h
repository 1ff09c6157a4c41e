/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that ask many shims at once: Tasks.List and Tasks.Metrics. On the loop. */
#pragma once

#include "service/context.h"

void tasks_list_handle(struct grpc_call *call, const ProtobufCMessage *request);
void tasks_metrics_handle(struct grpc_call *call, const ProtobufCMessage *request);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diff of the Diff service: what makes the left mounts into the right ones, as a layer in the
 * content store. Both are mounted for reading only, in a mount namespace of the call, and read by
 * wherry-worker; so the snapshot of a running container may be on either side.
 */
#pragma once

#include "wire/grpc_server.h"

void diff_compare(struct grpc_call *call, const ProtobufCMessage *request);

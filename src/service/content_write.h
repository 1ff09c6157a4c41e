/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content.Write: one stream, one writer, one answer to every message.
 *
 *   STAT      where the ingest stands
 *   WRITE     data at `offset`, which is the current one; offset 0 starts anew
 *   COMMIT    the same, then the blob is made, and the stream ends
 *
 * A client that ends its side without a COMMIT keeps the ingest and may come back for it. The
 * writer, and with it the reference, is let go before the last answer goes out, so that a client
 * which saw it can open the reference again.
 */
#pragma once

#include "wire/grpc_server.h"

void content_write(struct grpc_call *call, const ProtobufCMessage *request);

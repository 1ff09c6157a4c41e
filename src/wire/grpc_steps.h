/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The callbacks of a method, one after the other: which is due follows from what the call knows, so
 * that there is no queue of them to fill or to clean up.
 *
 *     handle, then while the call is not over: message*, half_closed, writable*
 *     once it is over: cancelled (unless the method answered), release
 */
#pragma once

#include "wire/grpc_call.h"

/* [lock held] Has the steps taken if one is due and nobody is at it already. */
void grpc_steps_schedule(struct grpc_call *call);
/* Takes steps until none is due; drops the reference of the run. Once for each scheduling. */
void grpc_steps_run(struct grpc_call *call);

/* [loop] Counts n bytes that came and are kept; false over the cap of the client. */
bool grpc_steps_hold(struct grpc_call *call, size_t n);
/* [loop] A whole message; bytes are owned. 0; -EEXIST for a second one of a call that takes one;
 * -ENOBUFS over the cap of the client; -ENOMEM. */
int grpc_steps_message(struct grpc_call *call, uint8_t *bytes, size_t n);
/* [loop] The client has sent its last. 0; -ENODATA when a call that takes one message had none. */
int grpc_steps_half_close(struct grpc_call *call);

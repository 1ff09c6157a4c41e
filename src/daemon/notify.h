/* SPDX-License-Identifier: Apache-2.0 */
/* sd_notify(3) without libsystemd: one datagram to $NOTIFY_SOCKET. */
#pragma once

/* "READY=1", "STOPPING=1". Does nothing without a socket; failures are not worth an error. */
void notify_send(const char *state);

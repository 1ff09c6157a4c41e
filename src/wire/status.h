/* SPDX-License-Identifier: Apache-2.0 */
/* struct err on the wire: google.rpc.Status of ttrpc, grpc-status and grpc-message of gRPC. */
#pragma once

#include "base/err.h"
#include "google.rpc.pb-c.h"

/* Fills s with borrowed strings of e: valid as long as e. */
void status_from_err(const struct err *e, Pb__Rpc__Status *s);
/* 0 when the status is absent, empty or OK, otherwise ERR_RETURN and e filled. */
int status_to_err(const Pb__Rpc__Status *s, struct err *e);

/* Percent-encoding of grpc-message: bytes outside 0x20..0x7e and '%' become %XX. out is
 * NUL-terminated and cut at size (never inside an escape). Returns its length. */
size_t status_message_encode(const char *message, char *out, size_t size);
/* Undoes it; broken escapes are kept as they are. In place. */
void status_message_decode(char *message);

/* grpc-timeout: up to 8 digits and one of H M S m u n -> milliseconds, rounded up. -EINVAL. */
int status_timeout_parse(const char *value, uint64_t *ret_ms);

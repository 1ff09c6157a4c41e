/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content digests as text: "<algorithm>:<lower-case hex>" (OCI image specification, descriptor.md).
 * The registered algorithms are sha256, sha384 and sha512, and the hex has exactly their length, so
 * a valid digest holds no '/', no '..' and no control byte, and may become a path component.
 *
 * Nothing here computes a hash: who needs one links libcrypto.
 */
#pragma once

#include "base/err.h"

enum digest_algorithm { DIGEST_SHA256, DIGEST_SHA384, DIGEST_SHA512 };

#define DIGEST_STR_MAX 136 /* "sha512:", 128 characters of hex, NUL */
#define DIGEST_BYTES_MAX 64

/* NULL for a valid digest, else what is wrong, in the words of containerd's clients and daemon:
 * "invalid checksum digest format", "invalid checksum digest length", "unsupported digest
 * algorithm". Static; s may be NULL. */
const char *digest_problem(const char *s);
static inline bool digest_is_valid(const char *s)
{
    return !digest_problem(s);
}

/* ERR_INVALID_ARGUMENT `"<s>" failed validation`. */
int digest_validate(const char *s, struct err *e);

/* Splits a valid digest; *ret_hex points into s. -EINVAL. Either pointer may be NULL. */
int digest_split(const char *s, enum digest_algorithm *ret_algorithm, const char **ret_hex);

/* "sha256" and so on. */
const char *digest_algorithm_name(enum digest_algorithm a);
/* Bytes of a raw hash. */
size_t digest_algorithm_bytes(enum digest_algorithm a);

/* The text of a raw hash of digest_algorithm_bytes() bytes. */
void digest_format(enum digest_algorithm a, const uint8_t *hash, char out[DIGEST_STR_MAX]);

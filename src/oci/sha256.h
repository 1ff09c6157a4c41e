/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 (FIPS 180-4) of something short: the name of a shim's socket, a chain id, a manifest.
 *
 * Ours because libcrypto would be most of the shim's size and of its private memory, and most of
 * the time that the command line needs to start, and because the kernel's AF_ALG may be missing or
 * forbidden. Anything that hashes content uses libcrypto in the daemon and the worker.
 */
#pragma once

#include "base/attr.h"

#define SHA256_SIZE 32

void sha256(const void *bytes, size_t n, uint8_t ret[SHA256_SIZE]);

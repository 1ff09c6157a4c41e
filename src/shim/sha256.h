/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 (FIPS 180-4) of one short string: the name of the shim's socket, once a start.
 *
 * Ours because libcrypto would be most of the shim's size and of its private memory, and because
 * the kernel's AF_ALG may be missing or forbidden where a shim runs. Anything that hashes content
 * uses libcrypto in the daemon and the worker.
 */
#pragma once

#include "base/attr.h"

#define SHA256_SIZE 32

void sha256(const void *bytes, size_t n, uint8_t ret[SHA256_SIZE]);

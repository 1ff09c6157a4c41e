/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON that somebody else wrote, read with limits: size, nesting, no key twice, no NUL in strings.
 * The nesting is checked before the parser, which recurses, sees the bytes.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/strmap.h"

#define DOCUMENT_DEPTH_MAX 64

static inline void document_decref(json_t **j)
{
    json_decref(*j);
}
#define _json_ _cleanup_(document_decref)

/* The object in the n bytes. `what` names it in sentences ("image manifest"). ERR_INVALID_ARGUMENT
 * for bytes that are no such object, ERR_RESOURCE_EXHAUSTED over max_bytes. The caller decrefs. */
int document_parse(const void *bytes, size_t n, size_t max_bytes, const char *what, json_t **ret,
                   struct err *e);
/* The same for a document that is an array. */
int document_parse_array(const void *bytes, size_t n, size_t max_bytes, const char *what,
                         json_t **ret, struct err *e);

/* Readers of members. A missing or null member leaves *ret untouched and is success; one of another
 * type is ERR_INVALID_ARGUMENT. Strings and vectors are copies, the caller's. */
int document_string(const json_t *object, const char *key, char **ret, struct err *e);
int document_int(const json_t *object, const char *key, int64_t *ret, struct err *e);
int document_bool(const json_t *object, const char *key, bool *ret, struct err *e);
int document_strv(const json_t *object, const char *key, size_t max, char ***ret, struct err *e);
int document_strmap(const json_t *object, const char *key, struct strmap *ret, struct err *e);
/* Borrowed from the object. */
int document_object(const json_t *object, const char *key, json_t **ret, struct err *e);
int document_array(const json_t *object, const char *key, json_t **ret, struct err *e);

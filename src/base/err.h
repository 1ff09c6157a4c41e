/* SPDX-License-Identifier: Apache-2.0 */
/*
 * struct err: an error that can reach a client: a gRPC code and one sentence.
 *
 * It lives on the caller's stack and is bounded, so there is nothing to free. A function that takes
 * one takes it last and fills it exactly when it returns a negative value; NULL is accepted.
 *
 * Codes are written by hand, by the function that knows what was looked for: err_set() takes the
 * code, err_errno() always yields ERR_UNKNOWN. Nobody branches on the negative value of our own
 * functions above base/; a service may branch on code.
 *
 * Sentences follow containerd's: lower case, context before detail, joined by ": ", and ending in
 * the class of the code where clients cut it off ("container \"x\" in namespace \"ns\": not
 * found").
 */
#pragma once

#include "base/attr.h"

/* The numbers of google.rpc.Code. */
enum err_code {
    ERR_OK = 0,
    ERR_CANCELED = 1,
    ERR_UNKNOWN = 2,
    ERR_INVALID_ARGUMENT = 3,
    ERR_DEADLINE_EXCEEDED = 4,
    ERR_NOT_FOUND = 5,
    ERR_ALREADY_EXISTS = 6,
    ERR_PERMISSION_DENIED = 7,
    ERR_RESOURCE_EXHAUSTED = 8,
    ERR_FAILED_PRECONDITION = 9,
    ERR_ABORTED = 10,
    ERR_OUT_OF_RANGE = 11,
    ERR_UNIMPLEMENTED = 12,
    ERR_INTERNAL = 13,
    ERR_UNAVAILABLE = 14,
    ERR_DATA_LOSS = 15,
    ERR_UNAUTHENTICATED = 16,
};

#define ERR_MSG_MAX 2040 /* bytes with the NUL; longer sentences end in "..." */

struct err {
    enum err_code code;
    int errnum; /* positive errno where there was one, else 0 */
    char msg[ERR_MSG_MAX];
};

#define ERR_INIT       \
    {                  \
        .code = ERR_OK \
    }

/* What err_set() and err_wrap() return, so that `return err_set(...)` reads well. */
#define ERR_RETURN (-ENOTRECOVERABLE)

/* Sets code and sentence. Returns ERR_RETURN. */
int err_set(struct err *e, enum err_code code, const char *format, ...) _printf_(3, 4);

/* Sets ERR_UNKNOWN and "<sentence>: <text of the errno, in lower case>"; r is a negative errno.
 * Returns r. */
int err_errno(struct err *e, int r, const char *format, ...) _printf_(3, 4);

/* Puts "<context>: " before what is there; code and errnum stay. Returns ERR_RETURN. */
int err_wrap(struct err *e, const char *format, ...) _printf_(2, 3);

/* ERR_RESOURCE_EXHAUSTED "out of memory". Returns -ENOMEM. */
int err_oom(struct err *e);

/* Drops everything. */
void err_clear(struct err *e);

/* "NotFound" and the like; "Unknown" for what is not a code. */
const char *err_code_name(enum err_code code);

/* Text of a (positive or negative) errno, first letter in lower case as Go prints it: thread-safe,
 * valid for ever for known numbers. */
const char *err_strerror(int errnum);

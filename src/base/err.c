/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/str.h"

/* Cuts a sentence that was longer than there is room for, at a whole character. */
static void mark_cut(char msg[ERR_MSG_MAX])
{
    size_t n = ERR_MSG_MAX - sizeof("...");

    while (n > 0 && ((uint8_t)msg[n] & 0xc0) == 0x80)
        n--;
    memcpy(msg + n, "...", sizeof("..."));
}

/* Names come from clients: no line feed or escape of theirs gets to a log or a terminal. */
static void mask_controls(char *msg)
{
    for (; *msg; msg++) {
        if (*msg == '\n' || *msg == '\r' || *msg == '\t')
            *msg = ' ';
        else if ((uint8_t)*msg < 0x20 || *msg == 0x7f)
            *msg = '?';
    }
}

/* Formats "<sentence><separator><rest>" into e. Arguments may point into e->msg. */
static _printf_(4, 0) void set_msg(struct err *e, const char *separator, const char *rest,
                                   const char *format, va_list args)
{
    char msg[ERR_MSG_MAX];
    int n = vsnprintf(msg, sizeof(msg), format, args);

    if (n < 0)
        n = 0;
    if ((size_t)n < sizeof(msg))
        n += snprintf(msg + n, sizeof(msg) - (size_t)n, "%s%s", separator, rest);
    if ((size_t)n >= sizeof(msg)) {
        n = sizeof(msg) - 1;
        mark_cut(msg);
    }
    mask_controls(msg);
    memcpy(e->msg, msg, (size_t)n + 1);
}

int err_set(struct err *e, enum err_code code, const char *format, ...)
{
    va_list args;

    if (!e)
        return ERR_RETURN;
    va_start(args, format);
    set_msg(e, "", "", format, args);
    va_end(args);
    e->code = code;
    e->errnum = 0;
    return ERR_RETURN;
}

int err_errno(struct err *e, int r, const char *format, ...)
{
    va_list args;

    if (!e)
        return r;
    va_start(args, format);
    set_msg(e, ": ", err_strerror(r), format, args);
    va_end(args);
    e->code = ERR_UNKNOWN;
    e->errnum = r < 0 ? -r : r;
    return r;
}

int err_wrap(struct err *e, const char *format, ...)
{
    va_list args;

    if (!e)
        return ERR_RETURN;
    va_start(args, format);
    set_msg(e, ": ", e->msg, format, args);
    va_end(args);
    return ERR_RETURN;
}

int err_oom(struct err *e)
{
    err_set(e, ERR_RESOURCE_EXHAUSTED, "out of memory");
    if (e)
        e->errnum = ENOMEM;
    return -ENOMEM;
}

void err_clear(struct err *e)
{
    if (!e)
        return;
    e->code = ERR_OK;
    e->errnum = 0;
    e->msg[0] = '\0';
}

/* The n-th string of a row of strings: one constant without pointers, which a position independent
 * program would have to relocate into private memory. */
static const char *nth_string(const char *row, unsigned n)
{
    while (n--)
        row += strlen(row) + 1;
    return row;
}

const char *err_code_name(enum err_code code)
{
    static const char names[] = "OK\0"
                                "Canceled\0"
                                "Unknown\0"
                                "InvalidArgument\0"
                                "DeadlineExceeded\0"
                                "NotFound\0"
                                "AlreadyExists\0"
                                "PermissionDenied\0"
                                "ResourceExhausted\0"
                                "FailedPrecondition\0"
                                "Aborted\0"
                                "OutOfRange\0"
                                "Unimplemented\0"
                                "Internal\0"
                                "Unavailable\0"
                                "DataLoss\0"
                                "Unauthenticated";

    if ((unsigned)code > ERR_UNAUTHENTICATED)
        code = ERR_UNKNOWN;
    return nth_string(names, code);
}

/* clang-format off */
/* Linux numbers of errno 1 to 133 (asm-generic/errno.h), in the words of libc with a small first
 * letter. 41 and 58 do not exist. */
static const char errno_texts[] =
    "operation not permitted\0"
    "no such file or directory\0"
    "no such process\0"
    "interrupted system call\0"
    "input/output error\0"
    "no such device or address\0"
    "argument list too long\0"
    "exec format error\0"
    "bad file descriptor\0"
    "no child processes\0"
    "resource temporarily unavailable\0"
    "cannot allocate memory\0"
    "permission denied\0"
    "bad address\0"
    "block device required\0"
    "device or resource busy\0"
    "file exists\0"
    "invalid cross-device link\0"
    "no such device\0"
    "not a directory\0"
    "is a directory\0"
    "invalid argument\0"
    "too many open files in system\0"
    "too many open files\0"
    "inappropriate ioctl for device\0"
    "text file busy\0"
    "file too large\0"
    "no space left on device\0"
    "illegal seek\0"
    "read-only file system\0"
    "too many links\0"
    "broken pipe\0"
    "numerical argument out of domain\0"
    "numerical result out of range\0"
    "resource deadlock avoided\0"
    "file name too long\0"
    "no locks available\0"
    "function not implemented\0"
    "directory not empty\0"
    "too many levels of symbolic links\0"
    "\0"
    "no message of desired type\0"
    "identifier removed\0"
    "channel number out of range\0"
    "level 2 not synchronized\0"
    "level 3 halted\0"
    "level 3 reset\0"
    "link number out of range\0"
    "protocol driver not attached\0"
    "no CSI structure available\0"
    "level 2 halted\0"
    "invalid exchange\0"
    "invalid request descriptor\0"
    "exchange full\0"
    "no anode\0"
    "invalid request code\0"
    "invalid slot\0"
    "\0"
    "bad font file format\0"
    "device not a stream\0"
    "no data available\0"
    "timer expired\0"
    "out of streams resources\0"
    "machine is not on the network\0"
    "package not installed\0"
    "object is remote\0"
    "link has been severed\0"
    "advertise error\0"
    "srmount error\0"
    "communication error on send\0"
    "protocol error\0"
    "multihop attempted\0"
    "RFS specific error\0"
    "bad message\0"
    "value too large for defined data type\0"
    "name not unique on network\0"
    "file descriptor in bad state\0"
    "remote address changed\0"
    "can not access a needed shared library\0"
    "accessing a corrupted shared library\0"
    ".lib section in a.out corrupted\0"
    "attempting to link in too many shared libraries\0"
    "cannot exec a shared library directly\0"
    "invalid or incomplete multibyte or wide character\0"
    "interrupted system call should be restarted\0"
    "streams pipe error\0"
    "too many users\0"
    "socket operation on non-socket\0"
    "destination address required\0"
    "message too long\0"
    "protocol wrong type for socket\0"
    "protocol not available\0"
    "protocol not supported\0"
    "socket type not supported\0"
    "operation not supported\0"
    "protocol family not supported\0"
    "address family not supported by protocol\0"
    "address already in use\0"
    "cannot assign requested address\0"
    "network is down\0"
    "network is unreachable\0"
    "network dropped connection on reset\0"
    "software caused connection abort\0"
    "connection reset by peer\0"
    "no buffer space available\0"
    "transport endpoint is already connected\0"
    "transport endpoint is not connected\0"
    "cannot send after transport endpoint shutdown\0"
    "too many references: cannot splice\0"
    "connection timed out\0"
    "connection refused\0"
    "host is down\0"
    "no route to host\0"
    "operation already in progress\0"
    "operation now in progress\0"
    "stale file handle\0"
    "structure needs cleaning\0"
    "not a XENIX named type file\0"
    "no XENIX semaphores available\0"
    "is a named type file\0"
    "remote I/O error\0"
    "disk quota exceeded\0"
    "no medium found\0"
    "wrong medium type\0"
    "operation canceled\0"
    "required key not available\0"
    "key has expired\0"
    "key has been revoked\0"
    "key was rejected by service\0"
    "owner died\0"
    "state not recoverable\0"
    "operation not possible due to RF-kill\0"
    "memory page has hardware error\0"
    ;
/* clang-format on */
static_assert(ENOSYS == 38 && EDEADLK == 35 && EHWPOISON == 133,
              "errno_texts is for the generic numbering");

const char *err_strerror(int errnum)
{
    unsigned n = errnum < 0 ? 0u - (unsigned)errnum : (unsigned)errnum;

    if (n < 1 || n > EHWPOISON || n == 41 || n == 58)
        return "unknown error";
    return nth_string(errno_texts, n - 1);
}

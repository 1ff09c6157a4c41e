/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes, scope-bound cleanup and ownership transfer. Included by every other header of base.
 *
 *   _free_ char *path = NULL;         freed when the scope is left
 *   _close_ int fd = -EBADF;          closed when the scope is left
 *   _cleanup_(buf_done) struct buf b; any `void f(T *)`
 *   *ret = TAKE(path);                gives the value away and leaves NULL behind
 *   *ret_fd = TAKE_FD(fd);            the same with -EBADF
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _nodiscard_ __attribute__((warn_unused_result))
#define _unused_ __attribute__((unused))
#define _noreturn_ __attribute__((noreturn))

/* Built with the thread sanitizer. */
#if defined(__SANITIZE_THREAD__)
#define HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define HAS_TSAN 1
#endif
#endif
#ifndef HAS_TSAN
#define HAS_TSAN 0
#endif

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define TAKE(lvalue)                           \
    ({                                         \
        __typeof__(lvalue) *take_ = &(lvalue); \
        __typeof__(lvalue) taken_ = *take_;    \
        *take_ = NULL;                         \
        taken_;                                \
    })

#define TAKE_FD(lvalue)         \
    ({                          \
        int *take_ = &(lvalue); \
        int taken_ = *take_;    \
        *take_ = -EBADF;        \
        taken_;                 \
    })

/* Takes the address of any pointer variable. */
static inline void free_pointer(void *p)
{
    free(*(void **)p);
}
#define _free_ _cleanup_(free_pointer)

/* Closes *fd if it is one and leaves -EBADF; keeps errno. */
static inline void close_fd(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    *fd = -EBADF;
    errno = saved;
}
#define _close_ _cleanup_(close_fd)

/* Turns the `-1 and errno` of a system call into our negative errno; other values pass through. */
#define neg_errno(call)                         \
    ({                                          \
        __typeof__(call) r_ = (call);           \
        r_ < 0 ? (__typeof__(r_))(-errno) : r_; \
    })

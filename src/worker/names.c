/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/names.h"

#include <sys/syscall.h>

#include "base/str.h"

#define BLOCK_BYTES (32 * 1024)

/* A directory entry of getdents64(2). */
struct linux_dirent64 {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[];
};

void names_done(struct names *x)
{
    free(x->bytes);
    free(x->at);
    *x = (struct names){0};
}

static int make_room(struct names *x, size_t n_bytes)
{
    if (x->n >= NAMES_MAX || x->n_bytes + n_bytes > NAMES_BYTES_MAX)
        return -EFBIG;
    if (x->n_bytes + n_bytes > x->room) {
        size_t room = MAX_OF(x->room * 2, (size_t)1024);
        char *bytes = realloc(x->bytes, room);
        if (!bytes)
            return -ENOMEM;
        x->bytes = bytes;
        x->room = room;
    }
    if (x->n == x->allocated) {
        size_t allocated = MAX_OF(x->allocated * 2, (size_t)32);
        uint32_t *at = reallocarray(x->at, allocated, sizeof(*at));
        if (!at)
            return -ENOMEM;
        x->at = at;
        x->allocated = allocated;
    }
    return 0;
}

static int add(struct names *x, const char *name)
{
    size_t n = strlen(name) + 1; /* at most NAME_MAX + 1, less than the first room */

    if (str_eq(name, ".") || str_eq(name, ".."))
        return 0;
    int r = make_room(x, n);
    if (r < 0)
        return r;
    memcpy(x->bytes + x->n_bytes, name, n);
    x->at[x->n++] = (uint32_t)x->n_bytes;
    x->n_bytes += n;
    return 0;
}

static int compare(const void *a, const void *b, void *bytes)
{
    const char *text = bytes;
    return strcmp(text + *(const uint32_t *)a, text + *(const uint32_t *)b);
}

int names_read(struct names *x, int fd)
{
    _Alignas(8) char block[BLOCK_BYTES];
    long n;
    int r = 0;

    names_done(x);
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    while (r == 0 && (n = neg_errno(syscall(SYS_getdents64, fd, block, sizeof(block)))) != 0) {
        if (n < 0)
            r = (int)n;
        for (long at = 0; at < n && r == 0;) {
            const struct linux_dirent64 *entry = (const void *)(block + at);
            r = add(x, entry->d_name);
            at += entry->d_reclen;
        }
    }
    if (r < 0) {
        names_done(x);
        return r;
    }
    if (x->n > 1)
        qsort_r(x->at, x->n, sizeof(*x->at), compare, x->bytes);
    return 0;
}

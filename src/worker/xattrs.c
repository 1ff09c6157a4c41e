/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/xattrs.h"

#include <sys/xattr.h>

#include "base/str.h"

#define NAMES_SIZE 65536 /* XATTR_LIST_MAX of the kernel */
#define VALUE_SIZE 65536 /* XATTR_SIZE_MAX of the kernel */

struct xattrs *xattrs_new(void)
{
    struct xattrs *x = calloc(1, sizeof(*x));

    if (!x)
        return NULL;
    buf_init(&x->values, XATTRS_BYTES_MAX);
    x->names = malloc(NAMES_SIZE);
    return x->names ? x : xattrs_free(x);
}

struct xattrs *xattrs_free(struct xattrs *x)
{
    if (!x)
        return NULL;
    buf_done(&x->values);
    free(x->names);
    free(x);
    return NULL;
}

bool xattrs_belong_to_layers(const char *name)
{
    if (str_after_prefix(name, "user."))
        return !str_after_prefix(name, "user.overlay.");
    return str_eq(name, "security.capability") || str_eq(name, "system.posix_acl_access") ||
           str_eq(name, "system.posix_acl_default");
}

/* 0 with one more in the list, or without when it has just been taken away. */
static int read_one(struct xattrs *x, int fd, const char *name)
{
    uint8_t *room;
    int r;

    if (x->n == TREE_XATTRS_MAX)
        return -E2BIG;
    r = buf_reserve(&x->values, VALUE_SIZE, &room);
    if (r < 0)
        return r == -ENOBUFS ? -E2BIG : r;
    ssize_t len = fgetxattr(fd, name, room, VALUE_SIZE);
    if (len < 0)
        return errno == ENODATA ? 0 : -errno;
    buf_commit(&x->values, (size_t)len);
    x->list[x->n++] = (struct tree_xattr){.name = name, .len = (size_t)len};
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tree_xattr *)a)->name, ((const struct tree_xattr *)b)->name);
}

int xattrs_read(struct xattrs *x, int fd)
{
    x->n = 0;
    buf_clear(&x->values);
    ssize_t n = flistxattr(fd, x->names, NAMES_SIZE);
    if (n < 0)
        return errno == ENOTSUP ? 0 : -errno;
    for (const char *name = x->names; name < x->names + n; name += strlen(name) + 1) {
        int r = xattrs_belong_to_layers(name) ? read_one(x, fd, name) : 0;
        if (r < 0)
            return r;
    }
    /* Only now do the values stay where they are. */
    const uint8_t *value = buf_head(&x->values);
    for (size_t i = 0; i < x->n; i++) {
        x->list[i].value = value;
        value += x->list[i].len;
    }
    if (x->n > 1)
        qsort(x->list, x->n, sizeof(x->list[0]), compare_names);
    return 0;
}

bool xattrs_equal(const struct xattrs *a, const struct xattrs *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct tree_xattr *x = &a->list[i], *y = &b->list[i];
        if (!str_eq(x->name, y->name) || x->len != y->len ||
            memcmp(x->value, y->value, x->len) != 0)
            return false;
    }
    return true;
}

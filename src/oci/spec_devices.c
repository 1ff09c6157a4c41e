/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/fs.h"
#include "base/str.h"
#include "oci/spec.h"

#define DEPTH_MAX 8
#define DEVICES_MAX 65536

struct list_devices {
    struct spec_device *devices;
    size_t n, allocated;
};

void spec_devices_free(struct spec_device *devices, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(devices[i].path);
    free(devices);
}

static void closedirp(DIR **d)
{
    if (*d)
        closedir(*d);
}

static int add(struct list_devices *l, const char *path, const struct stat *st)
{
    if (l->n >= DEVICES_MAX)
        return -ENOBUFS;
    if (l->n == l->allocated) {
        size_t allocated = l->allocated ? l->allocated * 2 : 64;
        struct spec_device *devices = reallocarray(l->devices, allocated, sizeof(*devices));
        if (!devices)
            return -ENOMEM;
        l->devices = devices;
        l->allocated = allocated;
    }
    l->devices[l->n] = (struct spec_device){
        .path = strdup(path),
        .type = S_ISBLK(st->st_mode) ? 'b' : 'c',
        .major = major(st->st_rdev),
        .minor = minor(st->st_rdev),
        .mode = st->st_mode & 0777,
        .uid = st->st_uid,
        .gid = st->st_gid,
    };
    if (!l->devices[l->n].path)
        return -ENOMEM;
    l->n++;
    return 0;
}

/* What the runtime makes by itself, or what is no device of the host. */
static bool is_skipped(const char *name, unsigned depth)
{
    static const char *const names[] = {"pts", "shm", "fd", "mqueue", "console", "ptmx", "tty"};

    if (name[0] == '.')
        return true;
    for (size_t i = 0; depth == 0 && i < ARRAY_SIZE(names); i++) {
        if (str_eq(name, names[i]))
            return true;
    }
    return false;
}

/* Recursion is bounded by DEPTH_MAX. dir_fd is taken. */
static int list_directory(struct list_devices *l, int dir_fd, const char *path, unsigned depth)
{
    _close_ int fd = dir_fd;
    _cleanup_(closedirp) DIR *d = fdopendir(fd);
    struct dirent *entry;
    int r = 0;

    if (!d)
        return -errno;
    TAKE_FD(fd);
    while (r >= 0 && (entry = readdir(d))) {
        _free_ char *child = fs_join(path, entry->d_name);
        struct stat st;

        if (!child)
            return -ENOMEM;
        if (is_skipped(entry->d_name, depth) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
            r = add(l, child, &st);
        } else if (S_ISDIR(st.st_mode) && depth < DEPTH_MAX) {
            int sub =
                openat(dirfd(d), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (sub >= 0)
                r = list_directory(l, sub, child, depth + 1);
        }
    }
    return r;
}

int spec_host_devices(struct spec_device **ret, size_t *ret_n, struct err *e)
{
    struct list_devices l = {};
    int fd = neg_errno(open("/dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    int r = fd < 0 ? fd : list_directory(&l, fd, "/dev", 0);

    if (r < 0) {
        spec_devices_free(l.devices, l.n);
        return err_errno(e, r, "list the devices of the host");
    }
    *ret = l.devices;
    *ret_n = l.n;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fs.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/str.h"

#define LOCK_PAUSE_US 1000

int fs_open_beneath(int root_fd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE)
        how.mode = mode & 07777;

    /* openat2(2) gives EAGAIN when something above was renamed meanwhile: try again, but not for
     * ever for somebody who renames all the time. */
    for (int tries = 0; tries < 64; tries++) {
        int fd = (int)syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
        if (fd >= 0)
            return fd;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return -EAGAIN;
}

static int mkdir_exactly(int dir_fd, const char *path, mode_t mode)
{
    if (mkdirat(dir_fd, path, mode) < 0)
        return -errno;
    struct stat st;
    if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if ((st.st_mode & 07777) != mode && fchmodat(dir_fd, path, mode, 0) < 0)
        return -errno;
    return 0;
}

static int is_directory(int dir_fd, const char *path)
{
    struct stat st;

    if (fstatat(dir_fd, path, &st, 0) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int fs_mkdir_p(int dir_fd, const char *path, mode_t mode)
{
    if (!*path)
        return -ENOENT;
    int r = mkdir_exactly(dir_fd, path, mode);
    if (r == -EEXIST)
        return is_directory(dir_fd, path);
    if (r != -ENOENT)
        return r;

    _free_ char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    for (char *s = copy;;) {
        s += strspn(s, "/");
        s += strcspn(s, "/");
        char kept = *s;
        *s = 0;
        r = mkdir_exactly(dir_fd, copy, mode);
        if (r == -EEXIST)
            r = is_directory(dir_fd, copy);
        if (r < 0)
            return r;
        *s = kept;
        if (s[strspn(s, "/")] == 0)
            return 0;
    }
}

int fs_open_private_dir(const char *path, mode_t mode, int *ret_fd)
{
    struct stat st;

    if (mkdir(path, mode) < 0 && errno != EEXIST) {
        if (errno != ENOENT)
            return -errno;
        _free_ char *parent = strdup(path);
        if (!parent)
            return -ENOMEM;
        char *end = parent + strlen(parent);
        while (end > parent + 1 && end[-1] == '/')
            *--end = 0;
        char *slash = strrchr(parent, '/');
        if (!slash || slash == parent)
            return -ENOENT;
        *slash = 0;
        int r = fs_mkdir_p(AT_FDCWD, parent, 0711);
        if (r < 0)
            return r;
        if (mkdir(path, mode) < 0 && errno != EEXIST)
            return -errno;
    }

    _close_ int fd = neg_errno(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_uid != geteuid())
        return -EPERM;
    if ((st.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
        return -errno;
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int fs_lock(int fd, int timeout_ms)
{
    uint64_t deadline = clock_monotonic_ms() + (uint64_t)MAX_OF(timeout_ms, 0);

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return -errno;
        if (clock_monotonic_ms() >= deadline)
            return -ETIMEDOUT;
        usleep(LOCK_PAUSE_US);
    }
    return 0;
}

/* As fs_read_all(), but it does not look for the end behind as many bytes as are expected. */
static ssize_t read_expected(int fd, void *bytes, size_t n, size_t expected)
{
    char *s = bytes;
    size_t done = 0;

    while (done < n) {
        ssize_t r = read(fd, s + done, n - done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        done += (size_t)r;
        if (done == expected)
            break;
    }
    return (ssize_t)done;
}

int fs_read_file(int dir_fd, const char *path, size_t max_bytes, char **ret, size_t *ret_len)
{
    struct stat st;

    /* O_NONBLOCK: opening a fifo must not wait for its writer. */
    _close_ int fd = neg_errno(openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (st.st_size > 0 && (uint64_t)st.st_size > max_bytes)
        return -EFBIG;

    /* Files of /proc and /sys say 0 or a page, so the size is where to begin, not what to believe.
     */
    struct buf b = BUF_INIT(max_bytes + 1);
    size_t step = st.st_size > 0 ? (size_t)st.st_size + 1 : 4096;
    int r = 0;
    for (;;) {
        uint8_t *room;
        size_t n_room = MIN_OF(step, max_bytes + 1 - b.len);
        r = buf_reserve(&b, n_room, &room);
        if (r < 0)
            break;
        ssize_t n = read_expected(fd, room, n_room, b.len == 0 ? (size_t)st.st_size : 0);
        if (n < 0) {
            r = (int)n;
            break;
        }
        buf_commit(&b, (size_t)n);
        if (b.len > max_bytes) {
            r = -EFBIG;
            break;
        }
        if ((size_t)n < n_room)
            break;
        step = MAX_OF(step, (size_t)65536);
    }
    if (r == 0) {
        size_t len = b.len;
        char *text = buf_take_str(&b);
        if (!text) {
            r = -ENOMEM;
        } else {
            *ret = text;
            if (ret_len)
                *ret_len = len;
        }
    }
    buf_done(&b);
    return r;
}

/* "<directory of path>/.tmp-<random>". */
static char *temporary_beside(const char *path)
{
    static const char prefix[] = ".tmp-";
    uint8_t random[8];
    const char *slash = strrchr(path, '/');
    size_t dir_len = slash ? (size_t)(slash - path) + 1 : 0;

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return NULL;
    char *name = malloc(dir_len + sizeof(prefix) + 2 * sizeof(random));
    if (!name)
        return NULL;
    memcpy(name, path, dir_len);
    memcpy(name + dir_len, prefix, sizeof(prefix) - 1);
    str_hex(random, sizeof(random), name + dir_len + sizeof(prefix) - 1);
    return name;
}

int fs_write_file_atomic(int dir_fd, const char *path, const void *bytes, size_t n, mode_t mode,
                         bool sync)
{
    _free_ char *temporary = temporary_beside(path);
    if (!temporary)
        return -ENOMEM;

    _close_ int fd = neg_errno(openat(
        dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0700));
    if (fd < 0)
        return fd;
    int r = fs_write_all(fd, bytes, n);
    if (r == 0 && fchmod(fd, mode) < 0)
        r = -errno;
    if (r == 0 && sync && fdatasync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(dir_fd, temporary, dir_fd, path) < 0)
        r = -errno;
    if (r < 0)
        unlinkat(dir_fd, temporary, 0);
    return r;
}

int fs_write_all(int fd, const void *bytes, size_t n)
{
    const char *s = bytes;

    while (n > 0) {
        ssize_t w = write(fd, s, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        s += w;
        n -= (size_t)w;
    }
    return 0;
}

ssize_t fs_read_all(int fd, void *bytes, size_t n)
{
    return read_expected(fd, bytes, n, 0);
}

int fs_open_dir(int dir_fd, const char *path, DIR **ret)
{
    _close_ int fd =
        neg_errno(openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));

    if (fd < 0)
        return fd;
    DIR *dir = fdopendir(fd);
    if (!dir)
        return -errno;
    (void)TAKE_FD(fd);
    *ret = dir;
    return 0;
}

int fs_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (wanted == flags)
        return 0;
    return neg_errno(fcntl(fd, F_SETFL, wanted));
}

char *fs_join(const char *dir, const char *name)
{
    return str_printf("%s/%s", dir, name);
}

char *fs_clean_path(const char *path)
{
    bool rooted = path[0] == '/';
    size_t n = strlen(path);
    char *out = malloc(n + 2);
    if (!out)
        return NULL;

    size_t len = 0;    /* of what is in out */
    size_t dotdot = 0; /* where backing up by ".." must stop */
    if (rooted)
        out[len++] = '/';
    dotdot = len;
    for (const char *s = path; *s;) {
        s += strspn(s, "/");
        size_t part = strcspn(s, "/");
        if (part == 0 || (part == 1 && s[0] == '.')) {
            s += part;
            continue;
        }
        if (part == 2 && s[0] == '.' && s[1] == '.') {
            s += part;
            if (len > dotdot) {
                while (--len > dotdot && out[len] != '/')
                    ;
            } else if (!rooted) {
                if (len > 0)
                    out[len++] = '/';
                out[len++] = '.';
                out[len++] = '.';
                dotdot = len;
            }
            continue;
        }
        if (len > (rooted ? 1u : 0u))
            out[len++] = '/';
        memcpy(out + len, s, part);
        len += part;
        s += part;
    }
    if (len == 0)
        out[len++] = '.';
    out[len] = 0;
    return out;
}

bool fs_exists(int dir_fd, const char *path)
{
    struct stat st;

    return fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

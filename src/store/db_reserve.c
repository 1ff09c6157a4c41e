/* SPDX-License-Identifier: Apache-2.0 */
#include "store/db_reserve.h"

#include <fcntl.h>

#include "base/err.h"
#include "base/log.h"
#include "base/str.h"

/* More than asked for is reserved, in these steps, so that it is asked for seldom. */
#define FILE_STEP_BYTES (64 * 1024)
#define LOG_STEP_BYTES (1024 * 1024)
/* https://www.sqlite.org/fileformat2.html#the_write_ahead_log */
#define LOG_HEADER_BYTES 32
#define FRAME_HEADER_BYTES 24

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

static int allocate(int fd, int64_t bytes)
{
    int r;

    do
        r = neg_errno(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes));
    while (r == -EINTR);
    return r;
}

/* Blocks for the first `bytes`, or more; *had is what there is. */
static int have(int fd, int64_t bytes, int64_t step, int64_t *had)
{
    int64_t rounded = round_up(bytes, step);
    int r;

    if (bytes <= *had)
        return 0;
    r = allocate(fd, rounded);
    if (r == -ENOSPC || r == -EDQUOT) {
        rounded = bytes;
        r = allocate(fd, rounded);
    }
    if (r >= 0)
        *had = rounded;
    return r;
}

static int64_t log_size(const struct db_reserve *r, int64_t frames)
{
    return LOG_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + r->page_bytes);
}

int db_reserve_open(struct db_reserve *r, const char *path, int *file_fd, int64_t page_bytes)
{
    _free_ char *log = str_printf("%s-wal", path);

    *r = (struct db_reserve)DB_RESERVE_INIT;
    r->page_bytes = page_bytes;
    r->file_fd = TAKE_FD(*file_fd);
    if (!log)
        return -ENOMEM;
    r->log_fd = neg_errno(open(log, O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    return MIN_OF(r->log_fd, 0);
}

void db_reserve_done(struct db_reserve *r)
{
    close_fd(&r->file_fd);
    close_fd(&r->log_fd);
}

int db_reserve_have(struct db_reserve *r, int64_t pages, int64_t log_pages)
{
    int res;

    if (r->is_off)
        return 0;
    res = have(r->file_fd, pages * r->page_bytes, FILE_STEP_BYTES, &r->file_bytes);
    if (res >= 0)
        res = have(r->log_fd, log_size(r, log_pages + pages), LOG_STEP_BYTES, &r->log_bytes);
    if (res == -EOPNOTSUPP) {
        r->is_off = true;
        return 0;
    }
    return res;
}

void db_reserve_cut(struct db_reserve *r, int64_t pages)
{
    r->file_bytes = MIN_OF(r->file_bytes, pages * r->page_bytes);
}

void db_reserve_leave(const struct db_reserve *r, const char *path)
{
    _free_ char *log = r->log_bytes > 0 ? str_printf("%s-wal", path) : NULL;
    _close_ int fd =
        log ? open(log, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600) : -EBADF;
    int res;

    if (fd < 0)
        return;
    res = allocate(fd, r->log_bytes);
    if (res < 0)
        log_debug("no room is kept in %s: %s", log, err_strerror(-res));
}

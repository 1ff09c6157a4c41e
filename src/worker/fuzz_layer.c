/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a layer, unpacked in-process into a directory in a temporary one. The first byte chooses
 * compression and kind of whiteouts. Beside the target lies a canary; whatever the bytes say, the
 * temporary directory holds the two and nothing else afterwards, and the canary is untouched.
 *
 * The sandbox is left out on purpose: the names alone have to be safe.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "base/fs.h"
#include "base/log.h"
#include "worker/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX_BYTES (1 << 20)

struct outside {
    char path[64];
    int fd;
    struct stat canary;
};

static void outside_init(struct outside *o)
{
    snprintf(o->path, sizeof(o->path), "/tmp/fuzz-layer-XXXXXX");
    assert(mkdtemp(o->path));
    o->fd = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert(o->fd >= 0);
    assert(fs_write_file_atomic(o->fd, "canary", "alive", 5, 0644, false) == 0);
    assert(mkdirat(o->fd, "target", 0755) == 0);
    assert(fstatat(o->fd, "canary", &o->canary, 0) == 0);
}

static void outside_check(const struct outside *o)
{
    struct stat st, dir;

    assert(fstatat(o->fd, "canary", &st, AT_SYMLINK_NOFOLLOW) == 0);
    assert(st.st_ino == o->canary.st_ino && st.st_size == 5 && st.st_nlink == 1 &&
           st.st_mode == o->canary.st_mode && st.st_uid == o->canary.st_uid &&
           st.st_mtim.tv_sec == o->canary.st_mtim.tv_sec &&
           st.st_mtim.tv_nsec == o->canary.st_mtim.tv_nsec &&
           st.st_ctim.tv_nsec == o->canary.st_ctim.tv_nsec);
    assert(fstat(o->fd, &dir) == 0 && dir.st_nlink == 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outside o;
    struct apply_result result;
    struct err e = ERR_INIT;

    if (size < 1 || size > INPUT_MAX_BYTES)
        return 0;
    log_set_level(LOG_FATAL);
    outside_init(&o);
    _close_ int in_fd = memfd_create("layer", MFD_CLOEXEC);
    _close_ int target_fd = openat(o.fd, "target", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert(in_fd >= 0 && target_fd >= 0);
    assert(fs_write_all(in_fd, data + 1, size - 1) == 0 && lseek(in_fd, 0, SEEK_SET) == 0);

    struct apply_job job = {
        .format = (enum decode_format)(data[0] % 4),
        .whiteouts = data[0] & 0x10 ? WHITEOUTS_PLAIN : WHITEOUTS_OVERLAY_USER,
        .in_fd = in_fd,
        .target_fd = target_fd,
        .limits = {.max_bytes = 16 << 20, .max_entries = 300},
    };
    if (apply_run(&job, &result, &e) < 0)
        assert(e.code != ERR_OK && e.msg[0]);
    else
        assert(result.blob_size_bytes == size - 1);
    outside_check(&o);
    close(o.fd);
    assert(fs_rm_rf(AT_FDCWD, o.path) == 0);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "oci/exit_record.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/fs.h"
#include "base/str.h"

#define RECORD_MAX 96

static char *record_path(const char *bundle, const char *exec_id)
{
    return exec_id ? str_printf("%s/exits/exec.%s", bundle, exec_id)
                   : str_printf("%s/exits/init", bundle);
}

int exit_record_write(const char *bundle, const char *exec_id, const struct exit_record *record)
{
    _free_ char *dir = fs_join(bundle, "exits");
    _free_ char *path = record_path(bundle, exec_id);
    char text[RECORD_MAX];

    if (!dir || !path)
        return -ENOMEM;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    int n = snprintf(text, sizeof(text), "%d %" PRIu32 " %lld %ld\n", (int)record->pid,
                     record->status, (long long)record->at.tv_sec, record->at.tv_nsec);
    return fs_write_file_atomic(AT_FDCWD, path, text, (size_t)n, 0600, false);
}

/* Cuts the next field, which ends in `end`, off *rest. NULL when it is not there. */
static char *next_field(char **rest, char end)
{
    char *field = *rest;
    char *stop = strchr(field, end);

    if (!stop || stop == field)
        return NULL;
    *stop = '\0';
    *rest = stop + 1;
    return field;
}

int exit_record_read(const char *bundle, const char *exec_id, struct exit_record *ret)
{
    _free_ char *path = record_path(bundle, exec_id);
    _free_ char *text = NULL;
    size_t n;
    uint32_t pid, status, nanoseconds;
    int64_t seconds;

    if (!path)
        return -ENOMEM;
    int r = fs_read_file(AT_FDCWD, path, RECORD_MAX, &text, &n);
    if (r < 0)
        return r;
    char *rest = text;
    const char *fields[4];
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        fields[i] = next_field(&rest, i + 1 == ARRAY_SIZE(fields) ? '\n' : ' ');
        if (!fields[i])
            return -EBADMSG;
    }
    if (*rest || str_to_u32(fields[0], &pid) < 0 || pid == 0 || pid > INT32_MAX ||
        str_to_u32(fields[1], &status) < 0 || str_to_i64(fields[2], &seconds) < 0 ||
        str_to_u32(fields[3], &nanoseconds) < 0 || nanoseconds >= 1000000000)
        return -EBADMSG;
    *ret = (struct exit_record){
        .pid = (pid_t)pid, .status = status, .at = {.tv_sec = seconds, .tv_nsec = nanoseconds}};
    return 0;
}

int exit_record_remove(const char *bundle, const char *exec_id)
{
    _free_ char *path = record_path(bundle, exec_id);

    if (!path)
        return -ENOMEM;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_find.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/str.h"

#define COMMAND_MAX 8192

/* The value behind a flag, in words that each end in NUL; NULL: no such flag. */
static const char *value_of(const char *words, size_t n, const char *flag)
{
    const char *end = words + n;

    for (const char *w = words; w < end; w += strlen(w) + 1) {
        const char *next = w + strlen(w) + 1;
        if (str_eq(w, flag) && next < end)
            return next;
    }
    return NULL;
}

static bool has_word(const char *words, size_t n, const char *word)
{
    for (const char *w = words; w < words + n; w += strlen(w) + 1)
        if (str_eq(w, word))
            return true;
    return false;
}

static bool is_shim(pid_t pid, const char *grpc_address, const char *ns, const char *id)
{
    char path[32], words[COMMAND_MAX];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* Anybody may give a process any command line: only our own user's count. */
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid())
        return false;
    ssize_t n = fs_read_all(fd, words, sizeof(words) - 1);
    if (n <= 0)
        return false;
    words[n] = '\0';
    const char *slash = strrchr(words, '/');
    if (!str_after_prefix(slash ? slash + 1 : words, "containerd-shim"))
        return false;
    const char *last = words;
    for (const char *w = words; w < words + n; w += strlen(w) + 1)
        last = w;
    if (str_eq(last, "start") || str_eq(last, "delete") || has_word(words, (size_t)n, "-bundle"))
        return false;
    return str_eq(str_or_empty(value_of(words, (size_t)n, "-namespace")), ns) &&
           str_eq(str_or_empty(value_of(words, (size_t)n, "-id")), id) &&
           str_eq(str_or_empty(value_of(words, (size_t)n, "-address")), grpc_address);
}

int shim_find(const char *grpc_address, const char *ns, const char *id, struct proc *ret)
{
    DIR *dir = opendir("/proc");
    int r = -ESRCH;

    if (!dir)
        return -errno;
    for (struct dirent *entry; r == -ESRCH && (entry = readdir(dir));) {
        struct proc found = PROC_NULL;
        uint32_t pid;
        if (!isdigit((unsigned char)entry->d_name[0]) || str_to_u32(entry->d_name, &pid) < 0 ||
            !is_shim((pid_t)pid, grpc_address, ns, id) || proc_open((pid_t)pid, &found) < 0)
            continue;
        /* Looked at again behind its pidfd: the number may have passed on in between. */
        if (is_shim((pid_t)pid, grpc_address, ns, id)) {
            *ret = found;
            r = 0;
        } else {
            proc_done(&found);
        }
    }
    closedir(dir);
    return r;
}

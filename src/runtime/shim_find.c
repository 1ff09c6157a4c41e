/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_find.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/identifier.h"
#include "base/str.h"
#include "runtime/bundle.h"

#define COMMAND_MAX 8192
#define STATUS_MAX 16384
#define SOCKETS_MAX (16u << 20)
#define EXEC_TRIES 1000
#define EXEC_PAUSE_US 1000

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

/* The owner of its files in /proc would not do: of one that must not be traced it is root. */
static bool is_our_users(pid_t pid)
{
    _free_ char *status = NULL;
    char path[32];
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    if (fs_read_file(AT_FDCWD, path, STATUS_MAX, &status, &n) < 0)
        return false;
    const char *line = strstr(status, "\nUid:");
    return line && strtoul(line + strlen("\nUid:"), NULL, 10) == getuid();
}

static bool is_in_our_namespace(pid_t pid, const char *kind)
{
    char path[48];
    struct stat ours, its;

    snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
    if (stat(path, &ours) < 0)
        return false;
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
    return stat(path, &its) == 0 && its.st_dev == ours.st_dev && its.st_ino == ours.st_ino;
}

/* The command line of a shim of the daemon at this address. */
struct shim_words {
    char text[COMMAND_MAX];
    size_t n;
};

static bool is_shim_program(const char *path)
{
    const char *slash = strrchr(path, '/');

    return str_after_prefix(slash ? slash + 1 : path, "containerd-shim");
}

static ssize_t read_command_line(pid_t pid, char *text, size_t size)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    _close_ int fd = neg_errno(open(path, O_RDONLY | O_CLOEXEC));
    return fd < 0 ? fd : fs_read_all(fd, text, size);
}

/* In execve(2) a process has its new program, and whoever started it has been told so, before it
 * has its words. */
static bool is_new_shim(pid_t pid)
{
    char path[PATH_MAX];

    return proc_read_link(pid, "exe", path, sizeof(path)) && is_shim_program(path) &&
           is_our_users(pid);
}

static bool read_words(pid_t pid, const char *grpc_address, struct shim_words *ret)
{
    ssize_t n = read_command_line(pid, ret->text, sizeof(ret->text) - 1);

    for (int i = 0; n == 0 && i < EXEC_TRIES && is_new_shim(pid); i++) {
        usleep(EXEC_PAUSE_US);
        n = read_command_line(pid, ret->text, sizeof(ret->text) - 1);
    }
    if (n <= 0)
        return false;
    ret->text[n] = '\0';
    ret->n = (size_t)n;
    if (!is_shim_program(ret->text))
        return false;
    const char *last = ret->text;
    for (const char *w = ret->text; w < ret->text + n; w += strlen(w) + 1)
        last = w;
    if (str_eq(last, "start") || str_eq(last, "delete") || has_word(ret->text, ret->n, "-bundle"))
        return false;
    return str_eq(str_or_empty(value_of(ret->text, ret->n, "-address")), grpc_address);
}

/* Anybody may write such a command line. */
static bool is_one_of_us(pid_t pid)
{
    return is_our_users(pid) && is_in_our_namespace(pid, "pid") && is_in_our_namespace(pid, "mnt");
}

static bool is_shim(pid_t pid, const char *grpc_address, const char *ns, const char *id)
{
    struct shim_words words;

    return read_words(pid, grpc_address, &words) && is_one_of_us(pid) &&
           str_eq(str_or_empty(value_of(words.text, words.n, "-namespace")), ns) &&
           str_eq(str_or_empty(value_of(words.text, words.n, "-id")), id);
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

/* The directory a process runs in, if that is or was a bundle. One call tells this of every process
 * of the machine. A path begins with a slash also where the mount that it lies on has gone: what is
 * left is its end. */
static bool read_directory(pid_t pid, char *ret, size_t size)
{
    if (!proc_read_link(pid, "cwd", ret, size))
        return false;
    return strstr(ret, "/" BUNDLE_V2 "/") || strstr(ret, "/" BUNDLE_LINUX "/");
}

/* Whether it cannot be reached by its path any more, which is then cut to what it was. */
static bool is_lost_directory(pid_t pid, char *ret)
{
    static const char removed[] = " (deleted)";
    char link[32];
    struct stat its, there;

    snprintf(link, sizeof(link), "/proc/%d/cwd", (int)pid);
    char *end = ret + strlen(ret) - strlen(removed);
    if (end > ret && str_eq(end, removed)) {
        *end = '\0';
        return true;
    }
    if (stat(link, &its) < 0)
        return false;
    return stat(ret, &there) < 0 || there.st_dev != its.st_dev || there.st_ino != its.st_ino;
}

/* Cuts ".../<runtime>/NS/ID". */
static bool split_bundle(char *path, const char *runtime, const char **ret_ns, const char **ret_id)
{
    char *id = strrchr(path, '/');
    if (!id)
        return false;
    *id++ = '\0';
    char *ns = strrchr(path, '/');
    if (!ns)
        return false;
    *ns++ = '\0';
    const char *base = strrchr(path, '/');
    if (!base || !str_eq(base + 1, runtime) || identifier_validate(ns, NULL) < 0 ||
        identifier_validate(id, NULL) < 0)
        return false;
    *ret_ns = ns;
    *ret_id = id;
    return true;
}

/* True when the path, as far as it is known, is that of a bundle below state. */
static bool is_ours(const char *state, const char *path, const struct lost_shim *shim)
{
    _free_ char *expected = str_printf("%s/%s/%s/%s", state, shim->runtime, shim->ns, shim->id);
    size_t n = expected ? strlen(expected) : 0;
    size_t len = strlen(path);

    return n >= len && str_eq(expected + n - len, path);
}

/* path: room for the names that ret borrows. */
static bool is_lost(pid_t pid, const char *grpc_address, const char *state, char *path, size_t size,
                    struct lost_shim *ret)
{
    static const char *const runtimes[] = {BUNDLE_V2, BUNDLE_LINUX};
    struct shim_words words;
    char whole[PATH_MAX];

    /* What is cheap and tells most apart comes first: at every start all processes are looked at.
     */
    if (!read_directory(pid, whole, sizeof(whole)) || !read_words(pid, grpc_address, &words) ||
        !is_lost_directory(pid, whole) || !is_one_of_us(pid))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(runtimes); i++) {
        snprintf(path, size, "%s", whole);
        ret->runtime = runtimes[i];
        if (!split_bundle(path, runtimes[i], &ret->ns, &ret->id) || !is_ours(state, whole, ret) ||
            !str_eq(str_or_empty(value_of(words.text, words.n, "-namespace")), ret->ns))
            continue;
        /* One of runtime v1 has no id but its bundle. */
        const char *id = value_of(words.text, words.n, "-id");
        return !id || str_eq(id, ret->id);
    }
    return false;
}

int shim_find_lost(const char *grpc_address, const char *state,
                   void (*fn)(void *userdata, struct lost_shim *shim), void *userdata)
{
    DIR *dir = opendir("/proc");

    if (!dir)
        return -errno;
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct lost_shim found = {.proc = PROC_NULL};
        char path[PATH_MAX];
        uint32_t pid;
        if (!isdigit((unsigned char)entry->d_name[0]) || str_to_u32(entry->d_name, &pid) < 0 ||
            !is_lost((pid_t)pid, grpc_address, state, path, sizeof(path), &found) ||
            proc_open((pid_t)pid, &found.proc) < 0)
            continue;
        /* Again, behind its pidfd. */
        if (is_lost((pid_t)pid, grpc_address, state, path, sizeof(path), &found))
            fn(userdata, &found);
        else
            proc_done(&found.proc);
    }
    closedir(dir);
    return 0;
}

/* The path of a listening socket, from its line "Num: RefCount Protocol Flags Type St Inode Path"
 * (unix(7), proc_net(5)). */
static char *listener_path(const char *table, uint64_t inode)
{
    char wanted[32];

    snprintf(wanted, sizeof(wanted), " %" PRIu64 " /", inode);
    for (const char *line = table; *line;) {
        size_t n = strcspn(line, "\n");
        const char *at = memmem(line, n, wanted, strlen(wanted));
        /* __SO_ACCEPTCON. */
        if (at && memmem(line, n, " 00010000 ", 10)) {
            const char *path = at + strlen(wanted) - 1;
            return strndup(path, n - (size_t)(path - line));
        }
        line += n + (line[n] == '\n');
    }
    return NULL;
}

char *shim_find_listener(pid_t pid)
{
    _free_ char *table = NULL;
    char path[32], link[64];
    char *found = NULL;
    size_t n;

    if (fs_read_file(AT_FDCWD, "/proc/net/unix", SOCKETS_MAX, &table, &n) < 0)
        return NULL;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);
        link[len > 0 ? len : 0] = '\0';
        const char *inode = str_after_prefix(link, "socket:[");
        if (inode)
            found = listener_path(table, strtoull(inode, NULL, 10));
    }
    if (dir)
        closedir(dir);
    return found;
}

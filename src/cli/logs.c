/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/logs.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "base/fs.h"
#include "base/str.h"

char *logs_path(const struct cli *cli, const char *id)
{
    const char *slash = strrchr(cli->address, '/');
    int n = slash ? (int)(slash - cli->address) : 0;

    return str_printf("%.*s/logs/%s/%s.log", n, cli->address, cli->namespace_, id);
}

int logs_begin(struct cli *cli, const char *id, char **ret_uri, struct err *e)
{
    _free_ char *path = logs_path(cli, id);
    _free_ char *uri = path ? str_printf("file://%s", path) : NULL;

    if (!uri)
        return err_oom(e);
    int r = container_set_label(cli, id, LABEL_LOG_PATH, path, e);
    if (r == 0)
        *ret_uri = TAKE(uri);
    return r;
}

#define BLOCK_BYTES 65536

struct follow {
    struct event_fd source;
    int inotify_fd;
    bool changed;
};

static int open_log(const Pb__Containers__Container *c, int *ret_fd, struct err *e)
{
    const char *path = container_label(c, LABEL_LOG_PATH);
    struct stat st;

    if (str_empty(path))
        return err_set(
            e, ERR_FAILED_PRECONDITION,
            "container %s keeps no log: only those that \"wherry run -d\" starts without -t "
            "do",
            c->id);
    *ret_fd = neg_errno(open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (*ret_fd == -EACCES)
        return err_set(e, ERR_PERMISSION_DENIED,
                       "no permission to read %s; the log of a container is root's", path);
    if (*ret_fd < 0)
        return err_errno(e, *ret_fd, "open the log %s", path);
    if (fstat(*ret_fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_set(e, ERR_FAILED_PRECONDITION, "the log %s is no file", path);
    return 0;
}

/* Puts the file's position before the last `lines` lines. */
static int seek_tail(int fd, int64_t lines)
{
    _free_ char *block = malloc(BLOCK_BYTES);
    off_t at = lseek(fd, 0, SEEK_END);
    int64_t seen = 0;

    if (!block || at < 0)
        return -ENOMEM;
    while (at > 0) {
        off_t start = MAX_OF(at - (off_t)BLOCK_BYTES, (off_t)0);
        ssize_t n = pread(fd, block, (size_t)(at - start), start);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        for (ssize_t i = n - 1; i >= 0; i--) {
            /* The newline that ends the last line begins nothing. */
            if (block[i] == '\n' && (i < n - 1 || seen > 0 || at != lseek(fd, 0, SEEK_END)) &&
                ++seen >= lines) {
                lseek(fd, start + i + 1, SEEK_SET);
                return 0;
            }
        }
        at = start;
    }
    lseek(fd, 0, SEEK_SET);
    return 0;
}

/* What is there, up to its present end. */
static int copy_rest(int fd, struct err *e)
{
    _free_ char *block = malloc(BLOCK_BYTES);
    ssize_t n;
    int r;

    if (!block)
        return err_oom(e);
    while ((n = read(fd, block, BLOCK_BYTES)) > 0) {
        r = fs_write_all(STDOUT_FILENO, block, (size_t)n);
        if (r < 0)
            return err_errno(e, r, "write to standard output");
    }
    return n < 0 ? err_errno(e, -errno, "read the log") : 0;
}

static void on_change(struct event_fd *source, uint32_t events)
{
    struct follow *f = container_of(source, struct follow, source);
    char drop[4096];

    while (read(f->inotify_fd, drop, sizeof(drop)) > 0)
        f->changed = true;
}

/* Copies as the file grows, until the task has ended. */
static int follow(struct cli *cli, const Pb__Containers__Container *c, int fd, struct err *e)
{
    Pb__Tasks__WaitRequest request = PB__TASKS__WAIT_REQUEST__INIT;
    _cleanup_(rpc_done) struct rpc wait = RPC_INIT;
    struct follow f = {};
    _close_ int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    int r;

    f.inotify_fd = watch;
    if (watch < 0 || inotify_add_watch(watch, container_label(c, LABEL_LOG_PATH), IN_MODIFY) < 0)
        return err_errno(e, -errno, "watch the log");
    request.container_id = c->id;
    r = rpc_start(cli, &wait, "tasks.v1.Tasks/Wait", &request.base,
                  &pb__tasks__wait_response__descriptor, e);
    if (r == 0)
        r = event_fd_add(&cli->loop, &f.source, watch, EPOLLIN, on_change);
    while (r >= 0 && !cli->interrupted) {
        bool ended = wait.done;

        f.changed = false;
        r = copy_rest(fd, e);
        if (r < 0 || ended)
            break;
        while (r >= 0 && !f.changed && !wait.done && !cli->interrupted)
            r = event_loop_turn(&cli->loop, -1);
    }
    event_fd_remove(&f.source);
    return r < 0 ? r : 0;
}

int logs_print(struct cli *cli, const Pb__Containers__Container *c, const struct logs_options *o,
               struct err *e)
{
    _close_ int fd = -EBADF;
    int r = open_log(c, &fd, e);

    if (r == 0 && o->tail == 0)
        lseek(fd, 0, SEEK_END);
    else if (r == 0 && o->tail > 0 && (r = seek_tail(fd, o->tail)) < 0)
        return err_errno(e, r, "read the log");
    if (r < 0)
        return r;
    if (!o->follow)
        return copy_rest(fd, e);
    r = cli_catch_signals(cli, e);
    return r < 0 ? r : follow(cli, c, fd, e);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/container_io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"

#define DIR_TRIES 100

static const char *const stream_names[] = {"stdin", "stdout", "stderr"};

void container_io_init(struct container_io *io)
{
    *io = (struct container_io){.fds = {-EBADF, -EBADF, -EBADF}};
}

/* The directory and, when it was the last one, the one it is in. */
static void remove_dir(const char *dir)
{
    _free_ char *parent = strdup(dir);
    char *slash = parent ? strrchr(parent, '/') : NULL;

    fs_rm_rf(AT_FDCWD, dir);
    if (slash) {
        *slash = '\0';
        rmdir(parent);
    }
}

void container_io_done(struct container_io *io)
{
    for (int i = 0; i < 3; i++) {
        pump_stop(&io->pumps[i]);
        close_fd(&io->fds[i]);
        free(io->paths[i]);
    }
    if (io->dir && !io->keep)
        remove_dir(io->dir);
    free(io->dir);
    container_io_init(io);
}

static int base_dir(char **ret)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (geteuid() == 0 || str_empty(runtime))
        *ret = strdup(CONTAINER_IO_BASE);
    else
        *ret = fs_join(runtime, "wherry/fifo");
    return *ret ? 0 : -ENOMEM;
}

static int try_make_dir(const char *base, const char *name)
{
    _close_ int base_fd = -EBADF;
    int r = fs_open_private_dir(base, 0700, &base_fd);

    return r < 0 ? r : neg_errno(mkdirat(base_fd, name, 0700));
}

static int make_dir(struct container_io *io, struct err *e)
{
    _free_ char *base = NULL;
    uint64_t random;
    char name[17];
    int r = base_dir(&base);

    if (r < 0)
        return err_oom(e);
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_errno(e, -errno, "make a random name");
    snprintf(name, sizeof(name), "%016llx", (unsigned long long)random);
    /* Who removes the last directory removes the base with it, maybe just between our two steps. */
    r = -ENOENT;
    for (int tries = 0; tries < DIR_TRIES && r == -ENOENT; tries++)
        r = try_make_dir(base, name);
    if (r < 0)
        return err_errno(e, r, "make the directory %s/%s for the container's streams", base, name);
    io->dir = fs_join(base, name);
    return io->dir ? 0 : err_oom(e);
}

/* Neither end blocks, whoever comes first: ours of stdin also reads, so that opening it succeeds.
 */
static int open_end(struct container_io *io, int stream, struct err *e)
{
    int flags = stream == 0 ? O_RDWR : O_RDONLY;
    struct stat st;

    io->fds[stream] =
        neg_errno(open(io->paths[stream], flags | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
    if (io->fds[stream] < 0)
        return err_errno(e, io->fds[stream], "open %s", io->paths[stream]);
    if (fstat(io->fds[stream], &st) < 0 || !S_ISFIFO(st.st_mode))
        return err_set(e, ERR_FAILED_PRECONDITION, "%s is no fifo", io->paths[stream]);
    return 0;
}

int container_io_make(struct container_io *io, const char *id, bool with_stdin, bool with_output,
                      bool terminal, struct err *e)
{
    const bool wanted[] = {with_stdin, with_output, with_output && !terminal};
    int r = 0;

    io->terminal = terminal;
    if (with_stdin || with_output)
        r = make_dir(io, e);
    for (int i = 0; i < 3 && r == 0; i++) {
        io->paths[i] =
            wanted[i] ? str_printf("%s/%s-%s", io->dir, id, stream_names[i]) : strdup("");
        if (!io->paths[i])
            return err_oom(e);
        if (!wanted[i])
            continue;
        if (mkfifo(io->paths[i], 0600) < 0)
            return err_errno(e, -errno, "make the fifo %s", io->paths[i]);
        r = open_end(io, i, e);
    }
    return r;
}

int container_io_attach(struct container_io *io, const char *stdin_path, const char *stdout_path,
                        const char *stderr_path, bool terminal, struct err *e)
{
    const char *paths[] = {stdin_path, stdout_path, terminal ? "" : stderr_path};
    int r = 0;

    io->terminal = terminal;
    for (int i = 0; i < 3 && r == 0; i++) {
        bool is_fifo = paths[i] && paths[i][0] == '/';

        io->paths[i] = strdup(is_fifo ? paths[i] : "");
        if (!io->paths[i])
            return err_oom(e);
        if (is_fifo)
            r = open_end(io, i, e);
    }
    return r;
}

static void on_stdin_done(struct pump *p)
{
    struct container_io *io = container_of(p, struct container_io, pumps[0]);

    if (p->detached) {
        io->on_detach(io);
        return;
    }
    close_fd(&io->fds[0]);
    io->on_stdin_end(io);
}

static void on_stdout_done(struct pump *p)
{
    container_of(p, struct container_io, pumps[1])->n_outputs--;
}

static void on_stdout_gone(struct pump *p)
{
    struct container_io *io = container_of(p, struct container_io, pumps[1]);

    io->on_output_gone(io);
}

uint64_t container_io_discarded(const struct container_io *io)
{
    return io->pumps[1].discarded_bytes;
}

static void on_stderr_done(struct pump *p)
{
    container_of(p, struct container_io, pumps[2])->n_outputs--;
}

int container_io_start(struct container_io *io, struct event_loop *loop, struct err *e)
{
    static void (*const on_done[])(struct pump *) = {on_stdin_done, on_stdout_done, on_stderr_done};

    for (int i = 2; i >= 0; i--) {
        int r;

        if (io->fds[i] < 0)
            continue;
        io->n_outputs += i > 0;
        r = i == 0 ? pump_start(&io->pumps[0], loop, STDIN_FILENO, io->fds[0], false,
                                io->terminal ? &io->keys : NULL, on_done[0])
                   : pump_start(&io->pumps[i], loop, io->fds[i], i, true, NULL, on_done[i]);
        if (r == -EBADF && i == 0) { /* we were started without a stdin */
            close_fd(&io->fds[0]);
            io->on_stdin_end(io);
        } else if (r < 0) {
            return err_errno(e, r, "copy the container's %s", stream_names[i]);
        }
        if (i == 1)
            io->pumps[1].on_gone = on_stdout_gone;
    }
    return 0;
}

void container_io_finish(struct container_io *io, struct event_loop *loop, int timeout_ms)
{
    uint64_t end = clock_monotonic_ms() + (uint64_t)timeout_ms, now = 0;

    pump_stop(&io->pumps[0]);
    while (io->n_outputs > 0 && (now = clock_monotonic_ms()) < end) {
        if (event_loop_turn(loop, (int)(end - now)) < 0)
            break;
    }
    for (int i = 1; i < 3; i++)
        pump_drain(&io->pumps[i]);
}

void container_io_remove_left(const char *fifo_path)
{
    _free_ char *base = NULL, *dir = NULL, *parent = NULL;
    char *slash;

    if (str_empty(fifo_path) || base_dir(&base) < 0)
        return;
    dir = strdup(fifo_path);
    if (!dir || !(slash = strrchr(dir, '/')))
        return;
    *slash = '\0';
    slash = strrchr(dir, '/');
    parent = slash ? strndup(dir, (size_t)(slash - dir)) : NULL;
    if (parent && str_eq(parent, base) && slash[1] && slash[1] != '.')
        remove_dir(dir);
}

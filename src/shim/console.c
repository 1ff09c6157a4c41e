/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/console.h"

#include <sys/ioctl.h>
#include <termios.h>

#include "base/fs.h"
#include "base/sock.h"
#include "base/str.h"

#define NAME_MAX_BYTES 4096

void console_socket_done(struct console_socket *s)
{
    close_fd(&s->fd);
    if (s->path)
        unlink(s->path);
    if (s->dir)
        rmdir(s->dir);
    free(s->path);
    free(s->dir);
    s->path = s->dir = NULL;
}

static int choose_path(struct console_socket *s, const char *bundle, const char *name)
{
    s->path = str_printf("%s/pty-%s.sock", bundle, name);
    if (!s->path)
        return -ENOMEM;
    if (strlen(s->path) <= SOCK_PATH_MAX)
        return 0;

    free(s->path);
    s->path = NULL;
    s->dir = strdup("/tmp/ptyXXXXXX");
    if (!s->dir)
        return -ENOMEM;
    if (!mkdtemp(s->dir)) {
        free(s->dir);
        s->dir = NULL;
        return -errno;
    }
    s->path = fs_join(s->dir, "pty.sock");
    return s->path ? 0 : -ENOMEM;
}

int console_socket_init(struct console_socket *s, const char *bundle, const char *name,
                        struct err *e)
{
    *s = (struct console_socket)CONSOLE_SOCKET_INIT;
    int r = choose_path(s, bundle, name);
    if (r == 0)
        r = sock_listen(s->path, 0600, 4, &s->fd);
    if (r < 0) {
        console_socket_done(s);
        return err_errno(e, r, "failed to create runc console socket");
    }
    return 0;
}

int console_socket_receive(struct console_socket *s, int *ret_master, struct err *e)
{
    _close_ int connection = -EBADF;
    _close_ int master = -EBADF;
    _free_ char *name = malloc(NAME_MAX_BYTES);

    if (!name)
        return err_oom(e);
    int r = sock_accept(s->fd, &connection);
    if (r < 0)
        return err_errno(e, r, "failed to retrieve console master: the OCI runtime sent none");
    ssize_t n = sock_recv_fd(connection, name, NAME_MAX_BYTES, &master);
    if (n < 0)
        return err_errno(e, (int)n, "failed to retrieve console master");
    if (master < 0 || !isatty(master))
        return err_set(e, ERR_UNKNOWN,
                       "failed to retrieve console master: the OCI runtime sent no terminal");
    r = fs_set_nonblock(master, true);
    if (r < 0)
        return err_errno(e, r, "failed to retrieve console master");
    *ret_master = TAKE_FD(master);
    return 0;
}

int console_resize(int master, uint32_t width, uint32_t height)
{
    const struct winsize size = {
        .ws_col = (unsigned short)MIN_OF(width, (uint32_t)UINT16_MAX),
        .ws_row = (unsigned short)MIN_OF(height, (uint32_t)UINT16_MAX),
    };
    return neg_errno(ioctl(master, TIOCSWINSZ, &size));
}

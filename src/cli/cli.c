/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <sys/signalfd.h>
#include <sys/stat.h>

#include "base/str.h"

int cli_init(struct cli *cli, struct err *e)
{
    int r;

    *cli = (struct cli){.signal_fd = -EBADF};
    r = event_loop_init(&cli->loop);
    return r < 0 ? err_errno(e, r, "make an event loop") : 0;
}

void cli_done(struct cli *cli)
{
    grpc_client_free(cli->client);
    event_fd_remove(&cli->signal_source);
    close_fd(&cli->signal_fd);
    event_loop_done(&cli->loop);
}

static int explain(const struct cli *cli, struct err *e)
{
    struct stat st;
    struct err why = *e;

    if (stat(cli->address, &st) < 0 && errno == ENOENT)
        return err_set(e, ERR_UNAVAILABLE,
                       "no daemon at %s: the socket does not exist; start wherryd, or name another "
                       "socket with --address",
                       cli->address);
    if (why.errnum == EACCES || strstr(why.msg, "permission denied"))
        return err_set(e, ERR_PERMISSION_DENIED,
                       "no permission to use the daemon at %s; run this as root, or as a member of "
                       "the group that owns the socket",
                       cli->address);
    if (why.errnum == ECONNREFUSED || strstr(why.msg, "refused"))
        return err_set(e, ERR_UNAVAILABLE,
                       "no daemon at %s: the socket is there but nobody listens on it; start "
                       "wherryd, or name another socket with --address",
                       cli->address);
    return err_set(e, why.code, "connect to the daemon at %s: %s", cli->address, why.msg);
}

int cli_connect(struct cli *cli, struct err *e)
{
    const char *path = str_after_prefix(cli->address, "unix://");

    if (cli->client)
        return 0;
    if (path)
        cli->address = path;
    if (grpc_client_new(&cli->loop, cli->address, CLI_CONNECT_TIMEOUT_MS, &cli->client, e) < 0)
        return explain(cli, e);
    if (grpc_client_set_header(cli->client, "containerd-namespace", cli->namespace_) < 0)
        return err_oom(e);
    return 0;
}

static void on_signals(struct event_fd *source, uint32_t events)
{
    struct cli *cli = container_of(source, struct cli, signal_source);
    struct signalfd_siginfo info;

    while (event_signal_read(cli->signal_fd, &info) == 1) {
        int sig = (int)info.ssi_signo;

        if (cli->on_signal) {
            cli->on_signal(cli, sig);
        } else if (sig == SIGINT || sig == SIGTERM || sig == SIGHUP) {
            cli->interrupted = sig;
            cli->n_interrupts++;
        }
    }
}

int cli_catch_signals(struct cli *cli, struct err *e)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
    sigset_t mask;
    int r;

    if (cli->signal_fd >= 0)
        return 0;
    sigemptyset(&mask);
    for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
        sigaddset(&mask, caught[i]);
    cli->signal_fd = event_signal_fd(&mask);
    if (cli->signal_fd < 0)
        return err_errno(e, cli->signal_fd, "catch signals");
    r = event_fd_add(&cli->loop, &cli->signal_source, cli->signal_fd, EPOLLIN, on_signals);
    return r < 0 ? err_errno(e, r, "catch signals") : 0;
}

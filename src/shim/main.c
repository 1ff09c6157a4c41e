/* SPDX-License-Identifier: Apache-2.0 */
/*
 * containerd-shim-wherry-v2: the parent of containers, one process a pod or a container. Under the
 * name containerd-shim it is the shim of runtime v1.
 */
#include <fcntl.h>
#include <signal.h>

#include "base/fs.h"
#include "base/str.h"
#include "shim/actions.h"

#define NAME "io.containerd.wherry.v2"

static void print(int fd, const char *format, ...) _printf_(2, 3);

static void print(int fd, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    _free_ char *text = str_vprintf(format, args);
    va_end(args);
    if (text && fs_write_all(fd, text, strlen(text)) < 0)
        return; /* there is nowhere to say so */
}

static void ignore_signal(int number)
{
}

/* The short actions finish what they have begun. */
static void catch_signals(void)
{
    const struct sigaction sa = {.sa_handler = ignore_signal};

    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGPIPE, &sa, NULL);
}

/* A descriptor below 3 that is closed would be given to the next file, which then was written our
 * answer or messages. Returns whether standard output was open. */
static bool open_standard_fds(void)
{
    bool has_stdout = fcntl(STDOUT_FILENO, F_GETFD) >= 0;

    for (int i = 0; i <= STDERR_FILENO; i++)
        if (fcntl(i, F_GETFD) < 0 && open("/dev/null", O_RDWR) != i)
            break; /* no /dev/null: what needs one says so */
    return has_stdout;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    bool v1 = str_eq(name, "containerd-shim");
    struct args args;
    struct err e = ERR_INIT;
    int status = EXIT_FAILURE;
    bool has_stdout = open_standard_fds();

    if (args_parse(argc, argv, v1, &args, &e) < 0) {
        print(STDERR_FILENO, "%s: %s\n", NAME, e.msg);
        return EXIT_FAILURE;
    }
    if (!has_stdout && args.action != ARGS_SERVE) {
        print(STDERR_FILENO, "%s: standard output is closed, where the answer goes\n", NAME);
        return EXIT_FAILURE;
    }
    switch (args.action) {
    case ARGS_VERSION:
        print(STDOUT_FILENO, "%s:\n  Version:  %s\n", argv[0], WHERRY_VERSION);
        return 0;
    case ARGS_INFO:
        status = action_info(&e);
        break;
    case ARGS_START:
        catch_signals();
        status = action_start(&args, &e);
        break;
    case ARGS_DELETE:
        catch_signals();
        status = action_delete(&args, &e);
        break;
    case ARGS_SERVE:
        status = action_serve(&args, v1, &e);
        break;
    }
    if (status != 0)
        print(STDERR_FILENO, "%s: %s\n", NAME, e.msg);
    return status;
}

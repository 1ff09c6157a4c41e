/* SPDX-License-Identifier: Apache-2.0 */
#include "shim/logger.h"

#include <fcntl.h>

#include "base/log.h"
#include "base/str.h"

#define GRACE_MS 1000
#define TERM_TIMEOUT_MS 12000

struct logger {
    struct reaper *reaper;
    struct child child;
    struct event_fd ready_source;
    struct event_timer timer;
    int ready_fd;
    bool needs_byte;
    bool terminated;
    logger_ready_fn ready;
    void *ready_userdata;
    logger_ended_fn ended;
    void *ended_userdata;
};

/* Appends n bytes with %XX (and '+' in queries) undone. */
static int push_decoded(char ***to, const char *s, size_t n, bool query)
{
    _free_ char *out = malloc(n + 1);
    size_t at = 0;

    if (!out)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int high = i + 2 < n ? str_digit(s[i + 1], 16) : -1;
            int low = high >= 0 ? str_digit(s[i + 2], 16) : -1;
            if (low < 0 || (high == 0 && low == 0))
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        out[at++] = c;
    }
    out[at] = '\0';
    return strv_push(to, out);
}

static int push_pair(char ***to, const char *pair, size_t n)
{
    const char *equals = memchr(pair, '=', n);
    size_t key = equals ? (size_t)(equals - pair) : n;

    int r = push_decoded(to, pair, key, true);
    if (r < 0)
        return r;
    r = equals ? push_decoded(to, equals + 1, n - key - 1, true) : strv_push(to, "");
    if (r < 0)
        return r;
    /* Of a key that comes again only the first value counts. */
    size_t words = strv_len(*to);
    for (size_t i = 1; i + 2 < words; i += 2) {
        if (!str_eq((*to)[i], (*to)[words - 2]))
            continue;
        for (size_t j = words - 2; j < words; j++) {
            free((*to)[j]);
            (*to)[j] = NULL;
        }
        break;
    }
    return 0;
}

int logger_parse_uri(const char *uri, char ***ret, struct err *e)
{
    _cleanup_(strv_freep) char **words = NULL;
    const char *path = strstr(uri, "://");

    path = path ? path + 3 : uri;
    size_t n = strcspn(path, "?#");
    if (path[0] != '/' || n < 2)
        return err_set(e, ERR_INVALID_ARGUMENT,
                       "logging program of \"%.500s\" is not an absolute path: invalid argument",
                       uri);
    int r = push_decoded(&words, path, n, false);
    const char *query = path[n] == '?' ? path + n + 1 : "";
    for (size_t i = 0; r == 0 && *query && *query != '#'; i++) {
        if (i >= LOGGER_ARGS_MAX / 2)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "more than %d parameters for a logging program: invalid argument",
                           LOGGER_ARGS_MAX / 2);
        n = strcspn(query, "&#");
        if (n > 0)
            r = push_pair(&words, query, n);
        query += n + (query[n] == '&');
    }
    if (r == -ENOMEM)
        return err_oom(e);
    if (r < 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "broken escape in \"%.500s\": invalid argument",
                       uri);
    *ret = TAKE(words);
    return 0;
}

/* Once: the outcome of the start. */
static void report(struct logger *l, const struct err *e)
{
    logger_ready_fn ready = l->ready;

    event_fd_remove(&l->ready_source);
    close_fd(&l->ready_fd);
    event_timer_disarm(&l->timer);
    l->ready = NULL;
    if (ready)
        ready(l->ready_userdata, e);
}

static void on_ready(struct event_fd *source, _unused_ uint32_t events)
{
    struct logger *l = container_of(source, struct logger, ready_source);
    struct err e = ERR_INIT;
    char byte;

    ssize_t n = read(l->ready_fd, &byte, 1);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 && l->needs_byte) {
        err_set(&e, ERR_UNKNOWN, "failed to start logging program: it closed fd 5 without a byte");
        report(l, &e);
    } else {
        report(l, NULL);
    }
}

static void on_ready_timeout(struct event_timer *timer)
{
    struct logger *l = container_of(timer, struct logger, timer);
    struct err e = ERR_INIT;

    err_set(&e, ERR_UNKNOWN,
            "failed to start logging program: it was not ready in %d seconds: context deadline "
            "exceeded",
            LOGGER_READY_TIMEOUT_MS / 1000);
    report(l, &e);
}

static void on_ended(struct child *child, int status)
{
    struct logger *l = container_of(child, struct logger, child);
    logger_ended_fn ended = l->ended;

    event_timer_disarm(&l->timer);
    if (ended) {
        l->ended = NULL;
        ended(l->ended_userdata);
        return;
    }
    if (status != 0)
        log_warn("logging program ended with status %d while its container runs", status);
}

int logger_new(struct reaper *reaper, const char *uri, const char *namespace_, const char *id,
               const char *cwd, int stdout_fd, int stderr_fd, logger_ready_fn ready, void *userdata,
               struct logger **ret, struct err *e)
{
    _cleanup_(strv_freep) char **argv = NULL;
    _cleanup_(proc_done) struct proc p = PROC_NULL;
    _close_ int ready_write = -EBADF;
    _free_ char *id_variable = str_printf("CONTAINER_ID=%s", id);
    _free_ char *namespace_variable = str_printf("CONTAINER_NAMESPACE=%s", namespace_);
    int pipe_fds[2];

    if (!id_variable || !namespace_variable)
        return err_oom(e);
    if (logger_parse_uri(uri, &argv, e) < 0)
        return ERR_RETURN;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "failed to make a pipe for the logging program");
    ready_write = pipe_fds[1];
    struct logger *l = calloc(1, sizeof(*l));
    if (!l) {
        close(pipe_fds[0]);
        return err_oom(e);
    }
    *l = (struct logger){
        .reaper = reaper,
        .child = CHILD_INIT,
        .ready_fd = pipe_fds[0],
        .needs_byte = str_after_prefix(uri, "binary-v2://") != NULL,
        .ready = ready,
        .ready_userdata = userdata,
    };
    const char *const envp[] = {id_variable, namespace_variable, NULL};
    const int fds[] = {-EBADF, -EBADF, -EBADF, stdout_fd, stderr_fd, ready_write};
    const struct proc_spawn s = {
        .path = argv[0],
        .exec_fd = -EBADF,
        .argv = (const char *const *)argv,
        .envp = envp,
        .cwd = cwd,
        .fds = fds,
        .n_fds = ARRAY_SIZE(fds),
    };
    int r = proc_spawn(&s, &p);
    if (r < 0) {
        l->ready = NULL;
        logger_free(l);
        return err_errno(e, r, "failed to start logging program %.500s", argv[0]);
    }
    r = reaper_watch(reaper, &l->child, &p, on_ended);
    if (r < 0)
        proc_kill(&p, SIGKILL); /* reaped as an orphan */
    else
        r = event_fd_add(reaper->loop, &l->ready_source, l->ready_fd, EPOLLIN, on_ready);
    if (r < 0) {
        logger_free(l);
        return err_errno(e, r, "failed to watch logging program");
    }
    event_timer_arm(reaper->loop, &l->timer, LOGGER_READY_TIMEOUT_MS, on_ready_timeout);
    *ret = l;
    return 0;
}

static void on_patience_over(struct event_timer *timer)
{
    struct logger *l = container_of(timer, struct logger, timer);

    proc_kill(&l->child.proc, l->terminated ? SIGKILL : SIGTERM);
    if (!l->terminated)
        event_timer_arm(l->reaper->loop, timer, TERM_TIMEOUT_MS, on_patience_over);
    l->terminated = true;
}

void logger_finish(struct logger *l, logger_ended_fn ended, void *userdata)
{
    l->ready = NULL;
    report(l, NULL);
    if (!child_is_alive(&l->child)) {
        ended(userdata);
        return;
    }
    l->ended = ended;
    l->ended_userdata = userdata;
    event_timer_arm(l->reaper->loop, &l->timer, GRACE_MS, on_patience_over);
}

void logger_hurry(struct logger *l)
{
    if (child_is_alive(&l->child))
        proc_kill(&l->child.proc, SIGKILL);
    if (l->ready)
        event_timer_arm(l->reaper->loop, &l->timer, 0, on_ready_timeout);
}

struct logger *logger_free(struct logger *l)
{
    if (!l)
        return NULL;
    event_fd_remove(&l->ready_source);
    event_timer_disarm(&l->timer);
    close_fd(&l->ready_fd);
    if (child_is_alive(&l->child))
        proc_kill(&l->child.proc, SIGKILL);
    reaper_forget(&l->child);
    free(l);
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/shim_log.h"

#include "base/log.h"
#include "base/str.h"

struct shim_log {
    struct event_loop *loop;
    struct event_fd source;
    struct event_post post; /* adding and closing are done on the loop */
    int fd;
    char *name;
    size_t len;
    char line[SHIM_LOG_LINE_MAX];
};

static void write_line(struct shim_log *l, const char *text, size_t n)
{
    if (n)
        log_debug("shim %s: %.*s", l->name, (int)n, text);
}

/* Hands on every whole line and keeps the rest; a line that fills the buffer goes as it is. */
static void split_lines(struct shim_log *l)
{
    char *start = l->line;
    char *end = l->line + l->len;

    for (char *newline; (newline = memchr(start, '\n', (size_t)(end - start))); start = newline + 1)
        write_line(l, start, (size_t)(newline - start));
    l->len = (size_t)(end - start);
    memmove(l->line, start, l->len);
    if (l->len == sizeof(l->line)) {
        write_line(l, l->line, l->len);
        l->len = 0;
    }
}

static void readable(struct event_fd *source, uint32_t events)
{
    struct shim_log *l = container_of(source, struct shim_log, source);

    ssize_t n = read(l->fd, l->line + l->len, sizeof(l->line) - l->len);
    if (n <= 0)
        return;
    l->len += (size_t)n;
    split_lines(l);
}

static void add_on_loop(struct event_post *post)
{
    struct shim_log *l = container_of(post, struct shim_log, post);

    int r = event_fd_add(l->loop, &l->source, l->fd, EPOLLIN, readable);
    if (r < 0)
        log_warn("read log of shim %s: %s", l->name, err_strerror(r));
}

struct shim_log *shim_log_new(struct event_loop *loop, const struct bundle *b, int fd)
{
    struct shim_log *l = calloc(1, sizeof(*l));
    char *name = str_printf("%s/%s", b->ns, b->id);
    if (!l || !name) {
        free(l);
        free(name);
        close(fd);
        return NULL;
    }
    l->loop = loop;
    l->fd = fd;
    l->name = name;
    event_loop_post(loop, &l->post, add_on_loop);
    return l;
}

struct shim_log *shim_log_open(struct event_loop *loop, struct bundle *b)
{
    int fd = -EBADF;

    int r = bundle_open_log(b, &fd);
    if (r < 0) {
        log_warn("open %s/log: %s", b->path, err_strerror(r));
        return NULL;
    }
    return shim_log_new(loop, b, fd);
}

static void close_on_loop(struct event_post *post)
{
    struct shim_log *l = container_of(post, struct shim_log, post);

    /* What the shim said last is still in the fifo. */
    readable(&l->source, EPOLLIN);
    write_line(l, l->line, l->len);
    event_fd_remove(&l->source);
    close(l->fd);
    free(l->name);
    free(l);
}

struct shim_log *shim_log_close(struct shim_log *l)
{
    if (l)
        event_loop_post(l->loop, &l->post, close_on_loop);
    return NULL;
}

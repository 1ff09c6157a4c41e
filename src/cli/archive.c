/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/archive.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/content_writer.h"
#include "oci/document.h"

#define RECORD_MAX 65536
#define CHUNK_BYTES (1u << 20)
#define LINKS_MAX 16

/* The worker's stream and what is being read from it. */
struct stream {
    struct cli *cli;
    struct proc worker;
    int fd;
    struct event_fd source;
    bool readable;
    struct buf in;
    const char *ref_prefix;
    bool ended;
};

static void member_free(struct archive_member *m)
{
    if (!m)
        return;
    free(m->text);
    free(m->target);
    free(m);
}

static void member_freep(struct archive_member **m)
{
    member_free(*m);
}

void archive_done(struct archive *a)
{
    MAP_FOREACH (entry, &a->members)
        member_free(entry->value);
    map_done(&a->members);
    *a = (struct archive){};
}

const struct archive_member *archive_find(const struct archive *a, const char *name)
{
    for (unsigned links = 0; name && links < LINKS_MAX; links++) {
        const struct archive_member *m = map_get(&a->members, name);
        if (!m || !m->target)
            return m;
        name = m->target;
    }
    return NULL;
}

bool archive_has_blob(const struct archive *a, const char *digest)
{
    const char *hex = NULL;
    enum digest_algorithm algorithm;
    char name[DIGEST_STR_MAX + 8];

    if (digest_split(digest, &algorithm, &hex) < 0)
        return false;
    snprintf(name, sizeof(name), "blobs/%s/%s", digest_algorithm_name(algorithm), hex);
    return archive_find(a, name);
}

static int find_worker(char **ret, struct err *e)
{
    static const char *const libexec[] = {"/usr/local/libexec/wherry/wherry-worker",
                                          "/usr/libexec/wherry/wherry-worker"};
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    self[MAX_OF(n, 0)] = '\0';
    slash = strrchr(self, '/');
    if (slash) {
        *slash = '\0';
        *ret = fs_join(self, "wherry-worker");
        if (*ret && access(*ret, X_OK) == 0)
            return 0;
        free(*ret);
        *ret = NULL;
    }
    if (proc_find_program("wherry-worker", NULL, ret) == 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(libexec); i++) {
        if (access(libexec[i], X_OK) == 0) {
            *ret = strdup(libexec[i]);
            return *ret ? 0 : err_oom(e);
        }
    }
    return err_set(e, ERR_NOT_FOUND,
                   "wherry-worker is missing: it is neither beside this program nor on PATH; it "
                   "reads image archives");
}

static void on_readable(struct event_fd *source, uint32_t events)
{
    struct stream *s = container_of(source, struct stream, source);

    s->readable = true;
    event_fd_set(source, 0);
}

static int start_worker(struct stream *s, int fd, struct err *e)
{
    _free_ char *path = NULL;
    _close_ int in = -EBADF, out = -EBADF;
    int pipe_fds[2], r = find_worker(&path, e);

    if (r < 0)
        return r;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_errno(e, -errno, "make a pipe");
    in = pipe_fds[0];
    out = pipe_fds[1];
    fcntl(in, F_SETPIPE_SZ, CHUNK_BYTES);
    const char *const argv[] = {"wherry-worker", "import", NULL};
    const int fds[] = {fd, out, STDERR_FILENO};
    struct proc_spawn spawn = PROC_SPAWN_INIT;
    spawn.path = path;
    spawn.argv = argv;
    spawn.fds = fds;
    spawn.n_fds = ARRAY_SIZE(fds);
    spawn.parent_death_signal = SIGKILL;
    r = proc_spawn(&spawn, &s->worker);
    if (r < 0)
        return err_errno(e, r, "start %s", path);
    fs_set_nonblock(in, true);
    s->fd = TAKE_FD(in);
    r = event_fd_add(&s->cli->loop, &s->source, s->fd, 0, on_readable);
    return r < 0 ? err_errno(e, r, "watch the worker") : 0;
}

static void stream_done(struct stream *s)
{
    int status = 0;

    event_fd_remove(&s->source);
    close_fd(&s->fd);
    buf_done(&s->in);
    if (!proc_is_set(&s->worker))
        return;
    if (!s->ended)
        proc_kill(&s->worker, SIGKILL);
    proc_reap(&s->worker, true, &status);
    proc_done(&s->worker);
}

/* Reads up to CHUNK_BYTES more into s->in; meanwhile the connection goes on. 0 bytes: an error,
 * since the stream says itself when it ends. */
static int fill(struct stream *s, struct err *e)
{
    uint8_t *at;
    int r = buf_reserve(&s->in, CHUNK_BYTES, &at);

    if (r < 0)
        return err_oom(e);
    for (;;) {
        ssize_t n = read(s->fd, at, CHUNK_BYTES);

        if (n > 0) {
            buf_commit(&s->in, (size_t)n);
            return 0;
        }
        if (n == 0)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "the archive is cut short, or its reader was killed by its limits");
        if (errno != EAGAIN && errno != EINTR)
            return err_errno(e, -errno, "read from the worker");
        s->readable = false;
        r = event_fd_set(&s->source, EPOLLIN);
        while (r >= 0 && !s->readable && !s->cli->interrupted)
            r = event_loop_turn(&s->cli->loop, -1);
        if (r < 0)
            return err_errno(e, r, "read from the worker");
        if (s->cli->interrupted)
            return err_set(e, ERR_CANCELED, "interrupted");
    }
}

static int next_record(struct stream *s, json_t **ret, struct err *e)
{
    for (;;) {
        uint8_t *line = buf_head(&s->in);
        uint8_t *end = s->in.len ? memchr(line, '\n', MIN_OF(s->in.len, (size_t)RECORD_MAX)) : NULL;
        int r;

        if (end) {
            r = document_parse(line, (size_t)(end - line), RECORD_MAX, "record of the worker", ret,
                               e);
            buf_consume(&s->in, (size_t)(end - line) + 1);
            return r;
        }
        if (s->in.len >= RECORD_MAX)
            return err_set(e, ERR_INTERNAL, "the worker's record is too long");
        r = fill(s, e);
        if (r < 0)
            return r;
    }
}

/* Hands out the next bytes of a member, at most `left`. */
static int next_bytes(struct stream *s, uint64_t left, const uint8_t **ret, size_t *ret_n,
                      struct err *e)
{
    int r = s->in.len > 0 ? 0 : fill(s, e);

    if (r < 0)
        return r;
    *ret = buf_head(&s->in);
    *ret_n = (size_t)MIN_OF((uint64_t)s->in.len, left);
    return 0;
}

/* The digest that a member's name promises: "blobs/sha256/<hex>". */
static bool blob_digest(const char *name, char out[DIGEST_STR_MAX])
{
    const char *rest = str_after_prefix(name, "blobs/");
    char *slash;

    if (!rest || strlen(rest) >= DIGEST_STR_MAX)
        return false;
    snprintf(out, DIGEST_STR_MAX, "%s", rest);
    slash = strchr(out, '/');
    if (slash)
        *slash = ':';
    if (slash && digest_is_valid(out))
        return true;
    out[0] = '\0';
    return false;
}

static int read_blob(struct archive *a, struct stream *s, const char *name,
                     struct archive_member *m, struct err *e)
{
    _cleanup_(content_writer_done) struct content_writer w = {};
    _free_ char *ref = str_printf("%s-%u", s->ref_prefix, a->n_blobs++);
    uint64_t left = (uint64_t)m->size;
    int r;

    if (!ref)
        return err_oom(e);
    r = content_writer_open(&w, s->cli, ref, m->digest, m->size, e);
    while (r == 0 && left > 0) {
        const uint8_t *bytes;
        size_t n;

        r = next_bytes(s, left, &bytes, &n, e);
        if (r == 0)
            r = content_writer_write(&w, bytes, n, e);
        if (r == 0) {
            buf_consume(&s->in, n);
            left -= n;
        }
    }
    if (r == 0)
        r = content_writer_commit(&w, e);
    if (r < 0)
        return e->code == ERR_CANCELED ? r : err_wrap(e, "%s", name);
    snprintf(m->digest, sizeof(m->digest), "%s", w.digest);
    return 0;
}

static int read_document(struct archive *a, struct stream *s, struct archive_member *m,
                         struct err *e)
{
    size_t at = 0, size = (size_t)m->size;

    if (a->document_bytes + size > ARCHIVE_DOCUMENTS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the archive holds too many documents");
    a->document_bytes += size;
    m->text = malloc(size + 1);
    if (!m->text)
        return err_oom(e);
    while (at < size) {
        const uint8_t *bytes;
        size_t n;
        int r = next_bytes(s, size - at, &bytes, &n, e);

        if (r < 0)
            return r;
        memcpy(m->text + at, bytes, n);
        buf_consume(&s->in, n);
        at += n;
    }
    m->text[size] = '\0';
    return 0;
}

static int skip(struct stream *s, uint64_t left, struct err *e)
{
    while (left > 0) {
        const uint8_t *bytes;
        size_t n;
        int r = next_bytes(s, left, &bytes, &n, e);

        if (r < 0)
            return r;
        buf_consume(&s->in, n);
        left -= n;
    }
    return 0;
}

static bool is_layer_name(const char *name)
{
    return str_has_suffix(name, ".tar") || str_has_suffix(name, ".tar.gz") ||
           str_has_suffix(name, ".tgz");
}

static int read_member(struct archive *a, struct stream *s, const char *name, const char *link,
                       int64_t size, struct err *e)
{
    _cleanup_(member_freep) struct archive_member *m = calloc(1, sizeof(*m));
    int r = 0;

    if (!m)
        return err_oom(e);
    if (a->members.n >= ARCHIVE_MEMBERS_MAX)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the archive has more than %d members",
                       ARCHIVE_MEMBERS_MAX);
    m->size = size;
    if (link) {
        m->target = strdup(link);
        r = m->target ? 0 : err_oom(e);
    } else if (blob_digest(name, m->digest) || is_layer_name(name)) {
        r = read_blob(a, s, name, m, e);
    } else {
        r = size <= (int64_t)ARCHIVE_DOCUMENT_MAX ? read_document(a, s, m, e)
                                                  : skip(s, (uint64_t)size, e);
    }
    if (r < 0)
        return r;
    member_free(map_remove(&a->members, name)); /* a tar's later member wins */
    r = map_add(&a->members, name, m);
    if (r < 0)
        return err_oom(e);
    TAKE(m);
    return 0;
}

/* 1 at the end of the stream. */
static int read_record(struct archive *a, struct stream *s, struct err *e)
{
    _json_ json_t *record = NULL;
    _free_ char *name = NULL, *link = NULL, *error = NULL;
    int64_t size = 0, code = ERR_UNKNOWN;
    bool end = false;
    int r = next_record(s, &record, e);

    if (r < 0 || (r = document_bool(record, "end", &end, e)) < 0 ||
        (r = document_string(record, "error", &error, e)) < 0 ||
        (r = document_int(record, "code", &code, e)) < 0 ||
        (r = document_string(record, "name", &name, e)) < 0 ||
        (r = document_string(record, "link", &link, e)) < 0 ||
        (r = document_int(record, "size", &size, e)) < 0)
        return r;
    if (error)
        return err_set(e, (enum err_code)code, "%s", error);
    if (end)
        return 1;
    if (!name || size < 0)
        return err_set(e, ERR_INTERNAL, "the worker's record names no member");
    return read_member(a, s, name, link, size, e);
}

int archive_read(struct archive *a, struct cli *cli, int fd, const char *ref_prefix, struct err *e)
{
    _cleanup_(stream_done) struct stream s = {
        .cli = cli,
        .worker = PROC_NULL,
        .fd = -EBADF,
        .in = BUF_INIT(2 * CHUNK_BYTES + RECORD_MAX),
        .ref_prefix = ref_prefix,
    };
    int r = start_worker(&s, fd, e);

    while (r == 0)
        r = read_record(a, &s, e);
    s.ended = r == 1;
    return r < 0 ? r : 0;
}

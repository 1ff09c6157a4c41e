/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <jansson.h>

#include "base/fs.h"
#include "base/str.h"
#include "worker/feed.h"
#include "worker/job.h"
#include "worker/tar_reader.h"

static const uint8_t zeros[64 * 1024];

static int write_out(const struct import_job *job, const void *bytes, size_t n, struct err *e)
{
    int r = fs_write_all(job->out_fd, bytes, n);
    return r < 0 ? err_errno(e, r, "hand on the content of the archive") : 0;
}

/* Takes the reference to the record. */
static int write_record(const struct import_job *job, json_t *record, struct err *e)
{
    char *line = record ? json_dumps(record, JSON_COMPACT) : NULL;
    json_decref(record);
    if (!line)
        return err_oom(e);
    size_t n = strlen(line);
    line[n] = '\n'; /* in the place of the NUL */
    int r = write_out(job, line, n + 1, e);
    free(line);
    return r;
}

static int refuse(const char *why, const char *name, struct err *e)
{
    _free_ char *quoted = str_quote(name);
    return err_set(e, ERR_INVALID_ARGUMENT, "%s in the archive: %s", why, str_or_empty(quoted));
}

/* A name within the archive: "./a//b" is "a/b", what leaves the archive is refused. */
static int clean_name(const char *name, char out[TREE_PATH_MAX + 1], struct err *e)
{
    if (*name == '/')
        return refuse("absolute name", name, e);
    for (const char *s = name; *s;) {
        size_t n = strcspn(s, "/");
        if (n == 2 && s[0] == '.' && s[1] == '.')
            return refuse("name with \"..\"", name, e);
        s += n;
        s += strspn(s, "/");
    }
    if (!str_is_utf8(name, strlen(name)))
        return refuse("name that is not UTF-8", name, e);
    return tree_clean(name, out, e);
}

/* What a symbolic link at `name` points to, as a name within the archive. */
static int resolve_link(const char *name, const char *link, char out[TREE_PATH_MAX + 1],
                        struct err *e)
{
    char joined[2 * TREE_PATH_MAX + 2];
    size_t depth = 0;

    const char *slash = strrchr(name, '/');
    size_t dir_len = slash ? (size_t)(slash - name) + 1 : 0;
    if (*link == '/' || strlen(link) > TREE_PATH_MAX || !str_is_utf8(link, strlen(link)))
        return refuse("link out of the archive", name, e);
    memcpy(joined, name, dir_len);
    memcpy(joined + dir_len, link, strlen(link) + 1);
    for (const char *s = joined; *s;) {
        size_t n = strcspn(s, "/");
        bool up = n == 2 && s[0] == '.' && s[1] == '.';
        if (up && depth == 0)
            return refuse("link out of the archive", name, e);
        if (up)
            depth--;
        else if (n > 0 && !(n == 1 && s[0] == '.'))
            depth++;
        s += n;
        s += strspn(s, "/");
    }
    return tree_clean(joined, out, e);
}

static int write_zeros(const struct import_job *job, int64_t n, struct err *e)
{
    while (n > 0) {
        size_t part = (size_t)MIN_OF(n, (int64_t)sizeof(zeros));
        int r = write_out(job, zeros, part, e);
        if (r < 0)
            return r;
        n -= (int64_t)part;
    }
    return 0;
}

static int write_member(const struct import_job *job, struct tar_reader *tar, int64_t size,
                        struct err *e)
{
    const void *bytes;
    size_t n;
    int64_t offset, at = 0;
    int r;

    while ((r = tar_reader_block(tar, &bytes, &n, &offset, e)) > 0) {
        if (offset < at || offset > size || (int64_t)n > size - offset)
            return err_set(e, ERR_INVALID_ARGUMENT,
                           "a member of the archive is larger than it says");
        if ((r = write_zeros(job, offset - at, e)) < 0 || (r = write_out(job, bytes, n, e)) < 0)
            return r;
        at = offset + (int64_t)n;
    }
    return r < 0 ? r : write_zeros(job, size - at, e);
}

/* Members whose bytes are mostly holes would make much out of little. */
static int check_size(const struct import_job *job, int64_t size, uint64_t *total, struct err *e)
{
    if (size < 0)
        return err_set(e, ERR_INVALID_ARGUMENT, "a member of the archive has no valid size");
    if ((uint64_t)size > job->limits.max_bytes - *total)
        return err_set(e, ERR_RESOURCE_EXHAUSTED, "the archive has more than %llu bytes",
                       (unsigned long long)job->limits.max_bytes);
    *total += (uint64_t)size;
    return 0;
}

static int import_entry(const struct import_job *job, struct tar_reader *tar,
                        struct archive_entry *a, uint64_t *total, bool *in_member, struct err *e)
{
    char name[TREE_PATH_MAX + 1];
    char target[TREE_PATH_MAX + 1];
    const char *raw = archive_entry_pathname(a);
    const char *hardlink = archive_entry_hardlink(a);
    const char *symlink = archive_entry_symlink(a);
    mode_t type = archive_entry_filetype(a);
    int r;

    if (!raw)
        return err_set(e, ERR_INVALID_ARGUMENT, "a member of the archive has no name");
    if ((r = clean_name(raw, name, e)) < 0)
        return r;
    if (!hardlink && type != S_IFREG && type != S_IFLNK)
        return 0;
    if (!*name)
        return refuse("member without a name", raw, e);
    if (hardlink || type == S_IFLNK) {
        r = hardlink ? clean_name(hardlink, target, e)
                     : resolve_link(name, str_or_empty(symlink), target, e);
        if (r < 0)
            return r;
        return write_record(job, json_pack("{ss ss}", "name", name, "link", target), e);
    }
    int64_t size = archive_entry_size(a);
    if ((r = check_size(job, size, total, e)) < 0 ||
        (r = write_record(job, json_pack("{ss sI}", "name", name, "size", (json_int_t)size), e)) <
            0)
        return r;
    *in_member = true;
    r = write_member(job, tar, size, e);
    if (r < 0) {
        _free_ char *quoted = str_quote(name);
        return err_wrap(e, "member %s", str_or_empty(quoted));
    }
    *in_member = false;
    return 0;
}

int import_run(const struct import_job *job, bool *ret_in_member, struct err *e)
{
    _cleanup_(feed_done) struct feed feed = {0};
    _cleanup_(tar_reader_done) struct tar_reader tar = {0};
    struct archive_entry *a;
    uint64_t total = 0;

    int r = feed_start(&feed, job->in_fd, DECODE_AUTO, job->limits.max_bytes, false, e);
    if (r < 0 || (r = tar_reader_init(&tar, feed_next, &feed, job->limits.max_entries, e)) < 0)
        return r;
    while ((r = tar_reader_next(&tar, &a, e)) > 0) {
        r = import_entry(job, &tar, a, &total, ret_in_member, e);
        if (r < 0)
            return r;
    }
    if (r < 0 || (r = feed_finish(&feed, e)) < 0)
        return r;
    return write_record(job, json_pack("{sb}", "end", 1), e);
}
